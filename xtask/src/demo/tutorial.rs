//! The tutorial's own words: servers, addresses, the resource, fdisk's answers.

/// One of the two servers.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Host name, and the name of its volume.
    pub name: &'static str,
    /// Where its volume is attached.
    pub disk: &'static str,
    /// The partition on it, DRBD's lower disk.
    pub partition: &'static str,
}

/// `drbd0`, `drbd1`.
pub const SERVERS: [Server; 2] = [
    Server { name: "drbd0", disk: "/dev/xvdb", partition: "/dev/xvdb1" },
    Server { name: "drbd1", disk: "/dev/xvdf", partition: "/dev/xvdf1" },
];

/// Its official Ubuntu 12.04: in a lab, this system with the texts of 2013.
pub const IMAGE: &str = "5cebb13a-f783-4f8c-8058-c4182c724ccd";

/// Prints what a server's daemon did since the server has booted.
pub const LOG: &str = "journalctl --boot --output cat --no-pager --unit lockstep-drbd";

/// The tutorial's edit of global_common.conf but for the number: 1 GB at its 30M takes half a minute.
pub const RATE: &str = "sed -i 's/syncer {/& rate 1G;/' /etc/drbd.d/global_common.conf";

/// Answers to fdisk: one primary partition of 1 GB.
pub const FDISK: &[&str] = &["n", "p", "", "", "+1GB", "p", "w"];

/// The line that makes the resource's file, the same in both servers.
pub const RESOURCE: &str = r#"cat << EOT >> /etc/drbd.d/r0.res
    resource r0 {
      protocol C;
        net {
            cram-hmac-alg sha1;
            shared-secret "dupersupersecret";
            timeout 180;
            ping-int 3;
            ping-timeout 9;
        }
        on drbd0 {
            device /dev/drbd0;
            disk /dev/xvdb1;
            address 172.16.16.4:7788;
            meta-disk internal;
        }
        on drbd1 {
            device /dev/drbd0;
            disk /dev/xvdf1;
            address 172.16.16.3:7788;
            meta-disk internal;
        }
}
EOT"#;

/// What fdisk printed, with the answers where a terminal would have echoed them.
pub fn dialogue(printed: &str, answers: &[&str]) -> String {
    let mut shown = String::new();
    let mut answers = answers.iter();
    for part in printed.split_inclusive("): ") {
        shown.push_str(part);
        let question = part.rsplit_once('(').map_or("", |(_, question)| question);
        if (question.contains("default") || question.contains("for help"))
            && let Some(answer) = answers.next()
        {
            shown.push_str(answer);
            shown.push('\n');
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::dialogue;

    #[test]
    fn answers_follow_their_questions() {
        let printed = "Welcome.\n\nCommand (m for help): Select (default p): Created (one).\n\
                       Sector size (logical/physical): 512\nCommand (m for help): Done.\n";
        let shown = "Welcome.\n\nCommand (m for help): n\nSelect (default p): \nCreated (one).\n\
                     Sector size (logical/physical): 512\nCommand (m for help): w\nDone.\n";
        assert_eq!(dialogue(printed, &["n", "", "w"]), shown);
    }
}
