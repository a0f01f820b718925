//! What Rust sources may not say.

use super::floors;

/// Words of the operating system, of time and of threads; with what a format or an engine does instead.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "no runtime"),
    ("std::fs", "bytes come in as arguments"),
    ("std::thread", "an engine has one owner and no thread"),
    ("SystemTime", "time comes in as an argument"),
    ("Instant::now", "time comes in as an argument"),
    ("std::process", "no process knows of it"),
    ("std::env", "settings come in as arguments"),
];

/// What `std::net` has that is plain data.
const NET_DATA: &[&str] =
    &["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6", "AddrParseError"];

/// Names of modules that say nothing about what is in them.
const NAMELESS: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

/// Checks one file; `path` is relative to the root.
pub fn check(path: &str, content: &str, breaches: &mut Vec<String>) {
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    let folders = path.split('/').rev().skip(1);
    if NAMELESS.contains(&stem) || folders.into_iter().any(|folder| NAMELESS.contains(&folder)) {
        breaches.push(format!("{path}: name the thing; `{}` name nothing", NAMELESS.join("`, `")));
    }
    let crate_name = path.split('/').nth(1).unwrap_or_default();
    let pure = floors::is_pure(crate_name) && path.contains("/src/") && stem != "tests";
    let mut in_tests = false;
    for (index, line) in content.lines().enumerate() {
        let at = format!("{path}:{}", index + 1);
        let code = without_comment(line);
        // Tests stand at the end of a file.
        in_tests |= code.trim() == "#[cfg(test)]";
        if let Some(reason) = unfinished(code) {
            breaches.push(format!("{at}: {reason}"));
        }
        if pure && !in_tests {
            for (word, instead) in IMPURE.iter().filter(|(word, _)| code.contains(word)) {
                breaches.push(format!("{at}: `{word}` in a format or an engine: {instead}"));
            }
            if let Some(item) = net_item(code) {
                breaches.push(format!(
                    "{at}: `std::net::{item}` in a format or an engine: only addresses are data"
                ));
            }
        }
    }
}

fn unfinished(code: &str) -> Option<&'static str> {
    let code = code.trim();
    if code == concat!("#[", "ignore]") {
        return Some("a test that is ignored says why: #[ignore = \"…\"]");
    }
    if code.contains(concat!("todo", "!(")) || code.contains(concat!("unimplemented", "!(")) {
        return Some("nothing unfinished is committed");
    }
    let undocumented =
        ["allow", "expect"].iter().any(|level| code.contains(&format!("{level}(missing_docs")));
    (undocumented && !code.contains("reason"))
        .then_some("every public item is documented, or says why not: reason = \"…\"")
}

/// The first item of `std::net` on the line that is more than an address.
fn net_item(code: &str) -> Option<&str> {
    let (_, items) = code.split_once("std::net::")?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let items = match items.strip_prefix('{') {
        Some(list) => list.split_once('}').map_or(list, |(list, _)| list),
        None => items.split_once(|c| !is_name(c)).map_or(items, |(item, _)| item),
    };
    items.split(',').map(str::trim).find(|item| !item.is_empty() && !NET_DATA.contains(item))
}

/// The line without a trailing comment. A `//` in a string ends it too, which can only hide what stands behind it.
fn without_comment(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::check;

    fn breaches(path: &str, content: &str) -> usize {
        let mut breaches = Vec::new();
        check(path, content, &mut breaches);
        breaches.len()
    }

    #[test]
    fn engines_are_pure_and_shells_are_not() {
        let engine = "crates/drbd-engine/src/resource.rs";
        assert_eq!(
            breaches(engine, "use std::time::Instant;\nuse std::net::SocketAddr; // not std::fs\n"),
            0
        );
        assert_eq!(breaches(engine, "use std::net::{IpAddr, TcpStream};\n"), 1);
        assert_eq!(breaches(engine, "use std::net::TcpStream;\n"), 1);
        assert_eq!(breaches(engine, "let now = Instant::now();\n"), 1);
        assert_eq!(breaches(engine, "#[cfg(test)]\nmod tests { use std::fs; }\n"), 0);
        assert_eq!(breaches("crates/drbd-node/src/shell.rs", "use std::fs;\nlet now = Instant::now();\n"), 0);
    }

    #[test]
    fn nothing_nameless_or_unfinished() {
        assert_eq!(breaches("crates/block/src/util.rs", ""), 1);
        assert_eq!(breaches("crates/block/src/common/disk.rs", ""), 1);
        assert_eq!(breaches("crates/block/src/disk.rs", &["#[", "ignore]\nfn f() {}"].concat()), 1);
        assert_eq!(breaches("crates/block/src/disk.rs", "#[ignore = \"needs a disk that lies\"]\n"), 0);
        assert_eq!(breaches("crates/block/src/disk.rs", &["todo", "!()"].concat()), 1);
    }
}
