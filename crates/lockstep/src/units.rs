//! The systemd units: their one home, for installations and for a lab's servers.

use std::path::Path;

/// What stands in a unit where the path of this program belongs.
const PROGRAM: &str = "@LOCKSTEP@";

/// File name and text of every unit.
pub const UNITS: &[(&str, &str)] = &[
    ("drbd.service", include_str!("../units/drbd.service")),
    ("lockstep-drbd.service", include_str!("../units/lockstep-drbd.service")),
];

/// The text of a unit that starts `program`; none if there is no unit of that name.
pub fn text(file_name: &str, program: &Path) -> Option<String> {
    let (_, text) = UNITS.iter().find(|(name, _)| *name == file_name)?;
    Some(text.replace(PROGRAM, &program.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{UNITS, text};

    #[test]
    fn a_unit_names_the_program_and_the_units_it_needs() {
        for (name, _) in UNITS {
            let text = text(name, Path::new("/opt/bin/lockstep")).expect("its text");
            assert!(
                text.contains("ExecStart=/opt/bin/lockstep drbd") && !text.contains('@'),
                "{name}:\n{text}"
            );
        }
        let drbd = text("drbd.service", Path::new("/x")).expect("its text");
        assert!(drbd.contains("Requires=lockstep-drbd.service\n"), "{drbd}");
        assert_eq!(text("sshd.service", Path::new("/x")), None);
    }
}
