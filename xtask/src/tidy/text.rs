//! What no file of the project may contain, whatever its language.

use std::path::Path;

/// Words that put off instead of saying: what is missing is written in CHANGELOG.md.
const MARKERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];

/// Files that are data, or texts of others.
const NOT_OURS: &[&str] = &["LICENSE-APACHE", "LICENSE-MIT", "Cargo.lock"];

/// Checks one file; `path` is relative to `root`.
pub fn check(root: &Path, path: &str, content: &str, breaches: &mut Vec<String>) {
    let data = ["golden", "corpus", "snapshots"]
        .iter()
        .any(|folder| path.split('/').any(|part| part.starts_with(folder)));
    if NOT_OURS.contains(&path) || data {
        return;
    }
    let root = root.to_string_lossy();
    for (index, line) in content.lines().enumerate() {
        let at = format!("{path}:{}", index + 1);
        if root.len() > 1 && line.contains(&format!("{root}/")) {
            breaches.push(format!("{at}: names the place that this checkout happens to be in"));
        }
        if let Some(marker) = MARKERS.iter().find(|marker| line.contains(**marker)) {
            breaches.push(format!("{at}: `{marker}`: say what is missing in CHANGELOG.md"));
        }
        if names_an_issue(line) {
            breaches.push(format!("{at}: give the reason itself, not the number of a discussion"));
        }
        // rustfmt sees to code; in a string they are what is meant.
        if !path.ends_with(".rs") && line.ends_with([' ', '\t', '\r']) {
            breaches.push(format!("{at}: blanks at the end of the line"));
        }
    }
    if !content.is_empty() && !content.ends_with('\n') {
        breaches.push(format!("{path}: the last line has no end"));
    }
}

/// The number of an issue or a pull request, as forges write it.
fn names_an_issue(line: &str) -> bool {
    [concat!("issue ", "#"), concat!("pull request ", "#"), concat!("PR ", "#"), concat!("(", "#")]
        .iter()
        .any(|start| {
            line.match_indices(start)
                .any(|(at, start)| line[at + start.len()..].starts_with(|c: char| c.is_ascii_digit()))
        })
}

#[cfg(test)]
mod tests {
    use super::check;
    use std::path::Path;

    fn breaches(content: &str) -> usize {
        let mut breaches = Vec::new();
        check(Path::new("/home/somebody/lockstep"), "docs/x.md", content, &mut breaches);
        breaches.len()
    }

    #[test]
    fn texts() {
        assert_eq!(breaches("A plain line.\n"), 0);
        assert_eq!(breaches("see /home/somebody/lockstep/target\n"), 1);
        assert_eq!(breaches(&["as discussed in issue ", "#12\n"].concat()), 1);
        assert_eq!(breaches("requests that issue 4 KiB writes\n"), 0);
        assert_eq!(breaches("blank at the end \n"), 1);
        assert_eq!(breaches("no end"), 1);
    }
}
