//! What `drbd.service` does: waits for the peer as long as the configuration says, and promotes whom it names.

use std::path::Path;
use std::time::Duration;

use testing_lab::{TestLab, can_run};

/// For a server to go down and come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const RESOURCE: &str = "resource r0 {
    protocol C;
    net { cram-hmac-alg sha1; shared-secret dupersupersecret; ping-int 1; }
    startup { wfc-timeout 2; degr-wfc-timeout 2; outdated-wfc-timeout 2; become-primary-on one; }
    disk { c-plan-ahead 0; resync-rate 100M; }
    device /dev/drbd0; disk /dev/xvdb1; meta-disk internal;
    on one { address 172.16.16.4:7789; }
    on two { address 172.16.16.3:7789; }
}
";

fn boot(lab: &TestLab, name: &str, address: &str) {
    let nic = format!("net-id=n,v4-fixed-ip={address}");
    lab.nova(&["volume-create", "--display-name", name, "1"]);
    let words = ["boot", "--image", "This system", "--flavor", "2", "--no-public", "--no-service-net"];
    lab.nova(&[&words[..], &["--init", "systemd", "--nic", &nic, name]].concat());
    lab.nova(&["volume-attach", name, name, "/dev/xvdb"]);
    lab.inside(name, "printf 'n\\np\\n1\\n2048\\n+40M\\nw\\n' | fdisk /dev/xvdb > /dev/null; true");
    lab.within(PATIENCE, name, "test -b /dev/xvdb1");
    let write =
        format!("rm -rf /etc/drbd.d/*.res; umask 077; cat > /etc/drbd.d/r0.res << EOT\n{RESOURCE}EOT");
    lab.inside(name, &write);
    lab.inside(name, "drbdadm create-md --force r0");
}

#[test]
fn a_service_waits_for_its_peer_and_promotes_whom_it_names() {
    let test = "a_service_waits_for_its_peer_and_promotes_whom_it_names";
    if !Path::new("/lib/systemd/systemd").exists() {
        eprintln!("skip {test}: no /lib/systemd/systemd");
        return;
    }
    if !can_run(test) {
        return;
    }
    let lab = TestLab::new("startup");
    lab.nova(&["network-create", "n", "172.16.16.0/24"]);
    boot(&lab, "one", "172.16.16.4");
    boot(&lab, "two", "172.16.16.3");

    // Alone, and without data that would let it be primary: it waits its time, and is served all the same.
    lab.inside_within(PATIENCE, "one", "service drbd start");
    let said = lab.inside("one", "journalctl -u drbd -o cat --no-pager");
    assert!(said.contains("r0: the peer of volume 0 has not appeared in time"), "{said}");
    assert!(said.contains("(-2) Need access to UpToDate data"), "{said}");
    assert!(!said.contains("dupersupersecret"), "{said}");
    assert_eq!(lab.inside("one", "drbdadm cstate r0"), "WFConnection\n");

    // By hand the daemon is its unit's, too: it does not end with this session.
    lab.inside("two", "drbdadm up r0 && drbdadm wait-connect r0 && systemctl is-active lockstep-drbd");
    lab.inside("one", "drbdadm primary --force r0 && drbdsetup wait-sync 0");
    lab.within(PATIENCE, "two", "test \"$(drbdadm dstate r0)\" = UpToDate/UpToDate");
    lab.inside("one", "dd if=/dev/urandom of=/dev/drbd0 bs=1M count=8 oflag=direct status=none");
    lab.inside("one", "drbdadm net-options --ping-timeout=9 r0");
    let shown = lab.inside("one", "drbdsetup show r0");
    assert!(shown.contains("ping-timeout    \t9;") && !shown.contains("dupersupersecret"), "{shown}");
    // Back to what the file says, and nothing else.
    assert!(lab.inside("one", "drbdadm -v adjust r0").starts_with("drbdsetup-84 net-options "));
    assert_eq!(lab.inside("one", "drbdadm -v adjust r0"), "");

    // Shut down in order, it comes back as primary, and nothing is out of sync.
    lab.inside("one", "update-rc.d drbd enable");
    let before = lab.inside("one", "cat /proc/sys/kernel/random/boot_id");
    lab.nova(&["reboot", "one"]);
    let is_next = format!("test \"$(cat /proc/sys/kernel/random/boot_id)\" != {}", before.trim());
    lab.within(PATIENCE, "one", &is_next);
    lab.within(PATIENCE, "one", "test \"$(drbdadm role r0)\" = Primary/Secondary");
    let proc = lab.inside("one", "lockstep proc drbd");
    assert!(proc.contains("ds:UpToDate/UpToDate") && proc.contains(" oos:0"), "{proc}");

    // What is open stays; what is not goes down.
    lab.refused("one", "exec 3< /dev/drbd0; drbdadm down r0", 11);
    lab.inside("one", "service drbd stop && ! systemctl is-active drbd");
    lab.inside("one", "drbdadm status r0 2>&1 | grep -q 'No such resource'");
}
