//! `/proc/PID/mountinfo`.

use std::fs;
use std::io;

/// A mount, as one line of mountinfo has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Major and minor number of the file system's `st_dev`.
    pub device: (u32, u32),
    /// Mount point, escapes resolved.
    pub point: String,
    /// File system type.
    pub kind: String,
}

/// The mounts that a process sees, in mount order.
///
/// # Errors
/// The process is gone.
pub fn of(pid: i32) -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string(format!("/proc/{pid}/mountinfo"))?.lines().filter_map(parse).collect())
}

/// The mounts that this process sees.
///
/// # Errors
/// There is no /proc.
pub fn own() -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse).collect())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let point = fields.nth(1)?;
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: unescape(point),
        kind: file_system.split(' ').next()?.to_owned(),
    })
}

/// Blank, tab, newline and backslash appear as three octal digits.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::{Mount, parse};

    #[test]
    fn a_line_of_proc_pid_mountinfo_5() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let expected = Mount { device: (98, 0), point: "/mnt 2".into(), kind: "ext3".into() };
        assert_eq!(parse(line), Some(expected));
    }
}
