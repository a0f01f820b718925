//! Which files an include statement means.
//!
//! As drbdadm: a pattern of the shell (`*`, `?`, `[a-z]`, none of them for a leading dot or a slash), relative to
//! the directory of the file that includes; matches in the order of their names; a pattern without wildcards must
//! exist, one with wildcards may match nothing.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Whether the pattern may match nothing without that being a mistake.
pub fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Paths that `pattern` matches, as seen from the directory of `including`.
///
/// # Errors
/// If a directory on the way cannot be read for another reason than not being there.
pub fn matches(including: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let base = including.parent().unwrap_or(Path::new(""));
    let pattern = Path::new(pattern);
    // The base is a name, not a pattern, whatever characters it has.
    let mut found = vec![if pattern.is_absolute() { PathBuf::new() } else { base.to_path_buf() }];
    for component in pattern.components() {
        match component {
            Component::Normal(name) => {
                let name = name.to_string_lossy();
                let mut deeper = Vec::new();
                for directory in &found {
                    if has_wildcard(&name) {
                        deeper.extend(entries_matching(directory, &name)?);
                    } else if directory.join(&*name).symlink_metadata().is_ok() {
                        deeper.push(directory.join(&*name));
                    }
                }
                found = deeper;
            }
            fixed => found.iter_mut().for_each(|path| path.push(fixed)),
        }
    }
    Ok(found)
}

fn entries_matching(directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = match std::fs::read_dir(listed) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    };
    let pattern: Vec<char> = pattern.chars().collect();
    let mut names: Vec<OsString> = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let text: Vec<char> = name.to_string_lossy().chars().collect();
        let hidden = text.first() == Some(&'.') && pattern.first() != Some(&'.');
        if !hidden && name_matches(&pattern, &text) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Whether a name matches a pattern of the shell. Linear in both: on a mismatch only the last `*` is stretched.
fn name_matches(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut stretch: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                stretch = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => set_matches(&pattern[p..], name[n]),
            Some(&c) if c == name[n] => Some(1),
            _ => None,
        };
        match (step, stretch) {
            (Some(length), _) => (p, n) = (p + length, n + 1),
            (None, Some((after, from))) => {
                (p, n) = (after, from + 1);
                stretch = Some((after, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Length of the `[…]` that `pattern` begins with if it has `c`. One without an end is a plain bracket.
fn set_matches(pattern: &[char], c: char) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = if negated { 2 } else { 1 };
    let Some(close) = pattern.iter().skip(first + 1).position(|&p| p == ']').map(|at| at + first + 1) else {
        return (c == '[').then_some(1);
    };
    let mut members = &pattern[first..close];
    let mut has = false;
    while let Some((&low, rest)) = members.split_first() {
        members = rest;
        if let ['-', high, after @ ..] = rest {
            has |= (low..=*high).contains(&c);
            members = after;
        } else {
            has |= low == c;
        }
    }
    (has != negated).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::{matches, name_matches};

    #[test]
    fn names_match_as_in_the_shell() {
        let check = |pattern: &str, name: &str| {
            name_matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        for (pattern, name) in [
            ("*.res", "r0.res"),
            ("*", "x"),
            ("r?.res", "r0.res"),
            ("r[0-3].*", "r2.res"),
            ("[!a-c]x", "dx"),
            ("a*b*c", "aXbYbZc"),
            ("[x", "[x"),
        ] {
            assert!(check(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.res", "r0.conf"), ("r?.res", "r10.res"), ("r[0-3]", "r4"), ("[!a-c]x", "ax"), ("a*b", "abc")]
        {
            assert!(!check(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_are_relative_to_the_including_file_and_sorted() {
        let directory = tempfile::tempdir().unwrap();
        let sub = directory.path().join("drbd.d");
        std::fs::create_dir(&sub).unwrap();
        for name in ["b.res", "a.res", ".hidden.res", "c.conf"] {
            std::fs::write(sub.join(name), "").unwrap();
        }
        let including = directory.path().join("drbd.conf");
        assert_eq!(matches(&including, "drbd.d/*.res").unwrap(), [sub.join("a.res"), sub.join("b.res")]);
        assert_eq!(matches(&including, "drbd.d/c.conf").unwrap(), [sub.join("c.conf")]);
        assert!(matches(&including, "drbd.d/none.conf").unwrap().is_empty());
        assert!(matches(&including, "elsewhere/*.res").unwrap().is_empty());
        let absolute = format!("{}/drbd.?/a.*", directory.path().display());
        assert_eq!(matches(&including, &absolute).unwrap(), [sub.join("a.res")]);
    }
}
