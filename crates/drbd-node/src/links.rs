//! Names of a device below /dev/drbd: by its resource and by its disk, as udev's rules for DRBD make them.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The links of one device.
#[derive(Debug)]
pub struct Links {
    /// Where the links are made: /dev/drbd.
    root: PathBuf,
    /// Below the root.
    names: Vec<PathBuf>,
}

impl Links {
    /// Of a volume of `resource`, on `disk` if it has one. Without a volume, the resource's name is the device's.
    pub fn new(root: &Path, resource: &str, volume: Option<u16>, disk: Option<&Path>) -> Self {
        let by_resource = Path::new("by-res").join(resource);
        let mut names = vec![match volume {
            Some(volume) => by_resource.join(volume.to_string()),
            None => by_resource,
        }];
        let disk =
            disk.map(|disk| disk.strip_prefix("/dev").or_else(|_| disk.strip_prefix("/")).unwrap_or(disk));
        names.extend(disk.map(|disk| Path::new("by-disk").join(disk)));
        // A name that leads elsewhere is none.
        names.retain(|name| name.components().all(|part| matches!(part, Component::Normal(_))));
        Self { root: root.to_owned(), names }
    }

    /// Makes them; `device` is the name of the node beside the root. What cannot be made is left out, and logged: the
    /// device has its other name.
    pub fn make(&self, device: &str) {
        for name in &self.names {
            if let Err(error) = self.make_one(name, device) {
                tracing::warn!(link = %self.root.join(name).display(), %error, "no link to the device");
            }
        }
    }

    fn make_one(&self, name: &Path, device: &str) -> io::Result<()> {
        let path = self.root.join(name);
        let directory = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(directory)?;
        // Relative, so that it also holds where /dev is mounted elsewhere.
        let target: PathBuf = name.components().map(|_| Path::new("..")).collect::<PathBuf>().join(device);
        let staged = path.with_extension("lockstep-new");
        let _ = std::fs::remove_file(&staged);
        std::os::unix::fs::symlink(target, &staged)?;
        std::fs::rename(&staged, &path).inspect_err(|_| drop(std::fs::remove_file(&staged)))
    }

    /// Removes those that still lead to `device`, and directories that are empty then.
    pub fn remove(&self, device: &str) {
        for name in &self.names {
            let path = self.root.join(name);
            let leads_there =
                std::fs::read_link(&path).is_ok_and(|target| target.file_name() == Some(device.as_ref()));
            if !leads_there || std::fs::remove_file(&path).is_err() {
                continue;
            }
            let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&self.root));
            for directory in above {
                if std::fs::remove_dir(directory).is_err() {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Links;

    #[test]
    fn they_lead_to_the_device_and_go_with_it() {
        let dev = tempfile::tempdir().unwrap();
        let root = dev.path().join("drbd");
        std::fs::write(dev.path().join("drbd3"), "three").unwrap();
        std::fs::write(dev.path().join("drbd4"), "four").unwrap();
        let three = Links::new(&root, "r0", Some(0), Some(Path::new("/dev/mapper/vg-a")));
        let four = Links::new(&root, "r0", Some(7), None);
        let named = Links::new(&root, "r1", None, Some(Path::new("/dev/sdb1")));
        three.make("drbd3");
        // What an earlier run left is replaced.
        three.make("drbd3");
        four.make("drbd4");
        named.make("drbd4");
        let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        assert_eq!(read("by-res/r0/0").as_deref(), Some("three"));
        assert_eq!(read("by-disk/mapper/vg-a").as_deref(), Some("three"));
        assert_eq!(read("by-res/r0/7").as_deref(), Some("four"));
        assert_eq!(read("by-res/r1").as_deref(), Some("four"));
        assert_eq!(read("by-disk/sdb1").as_deref(), Some("four"));
        three.remove("drbd3");
        assert_eq!((read("by-res/r0/0"), read("by-res/r0/7").as_deref()), (None, Some("four")));
        // Another's link stays.
        four.remove("drbd3");
        named.remove("drbd4");
        four.remove("drbd4");
        assert!(!root.exists(), "directories stay");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        let dev = tempfile::tempdir().unwrap();
        let root = dev.path().join("drbd");
        Links::new(&root, "../../r0", Some(0), Some(Path::new("/dev/../etc/x"))).make("drbd3");
        assert!(!root.exists() && std::fs::read_dir(dev.path()).unwrap().count() == 0);
    }
}
