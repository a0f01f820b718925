//! Lines of a server's /etc/fstab that systemd leaves out in containers, as mount units.
//!
//! systemd's own generator makes no units of devices where /sys is read-only, as no udev tells it when they come. A
//! server's volumes are there before it boots, so these units wait for no device. Those on mirrored devices wait for
//! `drbd.service`, and are unmounted before it ends.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Result};

/// One line of fstab(5) that names a device.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Line {
    /// `/dev/…`, `UUID=…` or `LABEL=…`.
    what: String,
    /// Mount point.
    point: String,
    /// File system type.
    kind: String,
    /// Mount options.
    options: Vec<String>,
}

impl Line {
    /// A line that systemd's generator would leave out; none for all others.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<String> =
            line.split('#').next()?.split_ascii_whitespace().map(unescape).take(4).collect();
        let [what, point, kind] = fields.first_chunk()?.clone();
        let options = fields.get(3).map_or("defaults", String::as_str);
        let identified = ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="].iter().any(|p| what.starts_with(p));
        let left_out = (what.starts_with("/dev/") || identified) && point.starts_with('/');
        // The root is mounted, and servers swap with their host.
        if !left_out || point == "/" || kind == "swap" {
            return None;
        }
        Some(Self { what, point, kind, options: options.split(',').map(str::to_owned).collect() })
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    fn is_mirrored(&self) -> bool {
        self.what
            .strip_prefix("/dev/drbd")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '/'))
    }

    /// A mirrored device cannot be there before the network is.
    fn is_remote(&self) -> bool {
        self.is_mirrored() || self.has("_netdev")
    }

    /// The target that waits for it.
    fn target(&self) -> &'static str {
        if self.is_remote() { "remote-fs.target" } else { "local-fs.target" }
    }

    fn unit_name(&self) -> String {
        format!("{}.mount", escape(&self.point))
    }

    fn unit(&self, what: &str) -> String {
        let mut unit = String::from("# From a line of /etc/fstab.\n[Unit]\nSourcePath=/etc/fstab\n");
        if !self.has("nofail") && !self.has("noauto") {
            let _ = writeln!(unit, "Before={}", self.target());
        }
        if self.is_mirrored() {
            unit += "Wants=drbd.service\nAfter=drbd.service\n";
        }
        let _ = write!(
            unit,
            "\n[Mount]\nWhat={}\nWhere={}\nType={}\n",
            percent(what),
            percent(&self.point),
            self.kind
        );
        let for_systemd = ["auto", "noauto", "nofail", "fail"];
        let mut options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        options.retain(|option| !for_systemd.contains(option) && !option.starts_with("x-systemd."));
        if self.is_remote() && !self.has("_netdev") {
            // What systemd knows a file system by that needs the network.
            options.push("_netdev");
        }
        if !options.is_empty() {
            let _ = writeln!(unit, "Options={}", percent(&options.join(",")));
        }
        unit
    }
}

/// Blanks and tabs are written as three octal digits.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// A percent sign begins a specifier in units.
fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

/// A path as part of a unit's name: systemd.unit(5), "String Escaping for Inclusion in Unit Names".
fn escape(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut name = String::new();
    for (index, byte) in parts.join("/").bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name += "\\x2e",
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(byte.into()),
            other => {
                let _ = write!(name, "\\x{other:02x}");
            }
        }
    }
    name
}

/// The device that is identified so, among those that are the server's: mount(8) would take any loop device that the
/// kernel knows, other servers' too.
fn identified(what: &str) -> Option<String> {
    let devices = fs::read_dir("/dev").ok()?.flatten();
    let own = devices.filter(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_block_device())
            && !entry.file_name().to_string_lossy().starts_with("loop")
    });
    let words = ["-o", "device", "-t", what];
    let found = Command::new("blkid").args(words).args(own.map(|entry| entry.path())).output().ok()?;
    String::from_utf8_lossy(&found.stdout).lines().next().map(str::to_owned)
}

/// Runs as a generator (systemd.generator(7)): writes units for the server's /etc/fstab to `directory`.
///
/// # Errors
/// The system's refusal.
pub fn generate(directory: &Path) -> Result<()> {
    let text = fs::read_to_string("/etc/fstab").unwrap_or_default();
    for line in text.lines().filter_map(Line::parse) {
        let what = if line.what.starts_with('/') { None } else { identified(&line.what) };
        let unit = line.unit(what.as_deref().unwrap_or(&line.what));
        let path = directory.join(line.unit_name());
        fs::write(&path, unit).doing(|| format!("write {}", path.display()))?;
        if line.has("noauto") {
            continue;
        }
        let strength = if line.has("nofail") { "wants" } else { "requires" };
        let wants = directory.join(format!("{}.{strength}", line.target()));
        fs::create_dir_all(&wants).doing(|| format!("create {}", wants.display()))?;
        let link = wants.join(line.unit_name());
        // A point that is there twice is mounted by its last line.
        if !link.is_symlink() {
            symlink(&path, &link).doing(|| format!("link {}", link.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Line, escape};

    #[test]
    fn lines_that_are_left_out_by_systemd() {
        for line in [
            "# /dev/xvdb /mnt ext4",
            "proc /proc proc defaults 0 0",
            "/dev/xvda / ext4 defaults 0 1",
            "/dev/xvdc none swap sw 0 0",
            "gluster-00:/shared /srv glusterfs defaults,_netdev 0 0",
            "/dev/xvdb",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_volume() {
        let line =
            Line::parse("/dev/xvdb1\t/srv/my\\040data ext4 noatime,nofail 0 2 # mine").expect("a line");
        assert_eq!(line.unit_name(), "srv-my\\x20data.mount");
        assert_eq!(
            line.unit("/dev/xvdb1"),
            "# From a line of /etc/fstab.\n[Unit]\nSourcePath=/etc/fstab\n\n[Mount]\nWhat=/dev/xvdb1\n\
             Where=/srv/my data\nType=ext4\nOptions=noatime\n"
        );
        assert_eq!(line.target(), "local-fs.target");
    }

    #[test]
    fn a_mirrored_device_waits_for_its_service() {
        let line = Line::parse("/dev/drbd0 /mnt/shared xfs defaults 0 0").expect("a line");
        let unit = line.unit("/dev/drbd0");
        assert!(unit.contains("Before=remote-fs.target\nWants=drbd.service\nAfter=drbd.service\n"), "{unit}");
        assert!(unit.contains("Options=defaults,_netdev\n"), "{unit}");
        assert!(Line::parse("/dev/drbd/by-res/r0/0 /mnt ext4").expect("a line").is_mirrored());
        assert!(!Line::parse("/dev/drbdata /mnt ext4").expect("a line").is_mirrored());
    }

    #[test]
    fn names_of_units() {
        assert_eq!(escape("/mnt/shared-data/"), "mnt-shared\\x2ddata");
        assert_eq!(escape("/.hidden"), "\\x2ehidden");
        assert_eq!(escape("//srv//x_1"), "srv-x_1");
    }
}
