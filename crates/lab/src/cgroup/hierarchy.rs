//! Where this system has its cgroups mounted.

use std::fs;
use std::path::{Path, PathBuf};

/// The cgroup file systems of this system: version 1 has one for each controller, version 2 one for all.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Hierarchies {
    /// Version 1: mount points and mount options.
    v1: Vec<(PathBuf, Vec<String>)>,
    /// Version 2.
    unified: Option<PathBuf>,
}

/// Where a controller's files are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seat<'a> {
    /// In a hierarchy of its own.
    V1(&'a Path),
    /// In the one of all controllers.
    V2(&'a Path),
}

impl Hierarchies {
    /// Those that this process sees.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn mounted() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts");
        mounts.map(|text| Self::parse(&text)).map_err(|error| format!("/proc/self/mounts: {error}"))
    }

    /// From lines of `cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0`. The first mount of a hierarchy counts.
    fn parse(mounts: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(path), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            match kind {
                "cgroup" => found.v1.push((path.into(), options.split(',').map(str::to_owned).collect())),
                "cgroup2" if found.unified.is_none() => found.unified = Some(path.into()),
                _ => {}
            }
        }
        found
    }

    /// The hierarchy of version 1 with this controller, or of this name (`name=systemd`).
    pub fn v1(&self, option: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(_, options)| options.iter().any(|o| o == option))
            .map(|(path, _)| path.as_path())
    }

    /// The hierarchy of version 2.
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Where a controller is.
    ///
    /// # Errors
    /// Nowhere; why.
    pub fn controller(&self, name: &str) -> Result<Seat<'_>, String> {
        if let Some(root) = self.v1(name) {
            return Ok(Seat::V1(root));
        }
        let root = self.unified().ok_or("no cgroup file system is mounted")?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_ascii_whitespace().any(|controller| controller == name) {
            return Ok(Seat::V2(root));
        }
        Err(format!("no {name} controller in {}", root.display()))
    }

    /// The roots in which servers have cgroups: of the hierarchy that tells a systemd's processes apart, and of the
    /// controllers that limit or stop them. Where there is version 1 alone, a systemd uses all controllers but cpuset,
    /// whose cgroups take no process before they are told which processors they have.
    pub fn roots(&self) -> Vec<&Path> {
        let has = |options: &[String], wanted: &[&str]| options.iter().any(|o| wanted.contains(&o.as_str()));
        let needed = |options: &[String]| match self.unified {
            Some(_) => has(options, &["memory", "cpu", "freezer"]),
            None => !has(options, &["cpuset"]),
        };
        let v1 = self.v1.iter().filter(|(_, options)| needed(options)).map(|(root, _)| root.as_path());
        self.unified().into_iter().chain(v1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Hierarchies, Seat};
    use std::path::Path;

    /// `/proc/self/mounts` of a Debian 10: both versions.
    const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs ro,nosuid,nodev,noexec,mode=755 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,nodev,noexec,relatime,xattr,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,nodev,noexec,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,nosuid,nodev,noexec,relatime,memory 0 0
";

    #[test]
    fn a_system_with_both_versions() {
        let found = Hierarchies::parse(HYBRID);
        assert_eq!(found.controller("memory"), Ok(Seat::V1(Path::new("/sys/fs/cgroup/memory"))));
        assert_eq!(found.controller("cpu"), Ok(Seat::V1(Path::new("/sys/fs/cgroup/cpu,cpuacct"))));
        assert_eq!(found.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.v1("name=systemd"), Some(Path::new("/sys/fs/cgroup/systemd")));
        assert_eq!(found.v1("freezer"), None);
        assert_eq!(found.roots().len(), 3);
    }

    #[test]
    fn a_controller_that_is_nowhere() {
        let none = Hierarchies::parse("proc /proc proc rw 0 0\n");
        assert_eq!(none.controller("memory"), Err("no cgroup file system is mounted".to_owned()));
        let here = tempfile::tempdir().expect("a directory");
        std::fs::write(here.path().join("cgroup.controllers"), "cpuset cpu io\n").expect("written");
        let line = format!("cgroup2 {} cgroup2 rw 0 0\n", here.path().display());
        let unified = Hierarchies::parse(&line);
        assert_eq!(unified.controller("cpu"), Ok(Seat::V2(here.path())));
        assert_eq!(
            unified.controller("memory"),
            Err(format!("no memory controller in {}", here.path().display()))
        );
    }
}
