//! Types the lines of docs/tutorial.md, and holds the document to what it says of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use testing_lab::tutorial::{Now, Row, parts};
use testing_lab::{TestLab, can_run, program};

/// For what the document lets its reader wait for: a full sync of 1 GB above all.
const PATIENCE: Duration = Duration::from_secs(120);

/// Servers that several rows are for.
const GROUPS: &[(&str, &[&str])] = &[
    ("both", &["drbd0", "drbd1"]),
    ("bricks", &["gluster-00", "gluster-01", "gluster-02", "gluster-03"]),
    ("webs", &["webHead0", "webHead1"]),
];

/// Prompts whose answers are the rows behind the program's own.
const PROMPTS: &[&str] = &["fdisk"];

/// What a line answered; both streams, since a reader sees both.
struct Said {
    success: bool,
    text: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self { success: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// A reader of the document, with a machine and a home.
struct Reader {
    lab: TestLab,
    home: tempfile::TempDir,
}

impl Reader {
    fn new(lab: &str) -> Self {
        let home = tempfile::tempdir().expect("a home");
        std::fs::create_dir_all(home.path().join(".ssh")).expect("a directory");
        std::fs::write(home.path().join(".ssh/id_rsa.pub"), "ssh-rsa AAAA reader\n").expect("a key");
        std::fs::create_dir(home.path().join("bin")).expect("a directory");
        for name in ["lockstep", "nova"] {
            symlink(program(), home.path().join("bin").join(name)).expect("a link");
        }
        Self { lab: TestLab::new(lab), home }
    }

    /// Types a line where `nova` is.
    fn in_the_cloud(&self, line: &str) -> Said {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("/bin/bash");
        shell.args(["-c", line]).stdin(Stdio::null());
        shell.env("HOME", self.home.path()).env("LOCKSTEP_LAB", self.lab.name());
        shell.env("PATH", format!("{}/bin:{path}", self.home.path().display()));
        shell.output().expect("bash starts").into()
    }

    /// Types a line in a server, and answers at the prompts that follow.
    fn in_server(&self, server: &str, line: &str, answers: &str) -> Said {
        let before = self.process_1(server);
        let mut nova = self.lab.command("nova", &["ssh", server, line]);
        nova.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut nova = nova.spawn().expect("nova starts");
        let mut stdin = nova.stdin.take().expect("piped");
        // A program that does not ask has ended by then.
        let _ = stdin.write_all(answers.as_bytes());
        drop(stdin);
        let mut said = Said::from(nova.wait_with_output().expect("it ends"));
        if line.ends_with("reboot") {
            let patience_ends = Instant::now() + PATIENCE;
            while self.process_1(server).is_none_or(|now| Some(now) == before) {
                assert!(
                    Instant::now() < patience_ends,
                    "{server} does not come back from: {line}\n{}",
                    said.text
                );
                std::thread::sleep(Duration::from_millis(100));
            }
            // A connection that its server's reboot ended is no failure of the line.
            said.success = true;
        }
        said
    }

    /// The host's id of a server's process 1, if it is up.
    fn process_1(&self, server: &str) -> Option<i64> {
        let shown = self.lab.nova(&["show", "--json", server]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        shown["pid"].as_i64().filter(|_| shown["status"] == "ACTIVE")
    }

    /// `<NAME>` is the id of that server.
    fn with_ids(&self, line: &str) -> String {
        let listing = self.lab.nova(&["list", "--json"]);
        let servers: serde_json::Value = serde_json::from_str(&listing).expect("JSON");
        servers.as_array().into_iter().flatten().fold(line.to_owned(), |line, server| {
            let text = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
            line.replace(&format!("<{}>", text("name")), &text("id"))
        })
    }

    /// Types a line wherever the row has it, at once where those are several servers.
    fn types(&self, row: &Row, line: &str, answers: &str) -> BTreeMap<String, Said> {
        if row.place == "cloud" {
            return [("cloud".to_owned(), self.in_the_cloud(&self.with_ids(line)))].into();
        }
        let group = GROUPS.iter().find(|(name, _)| *name == row.place).map(|(_, servers)| *servers);
        let place = [row.place.as_str()];
        let servers = group.unwrap_or(&place);
        std::thread::scope(|scope| {
            let threads: Vec<_> = servers
                .iter()
                .map(|server| (*server, scope.spawn(|| self.in_server(server, line, answers))))
                .collect();
            let said = |(server, thread): (&str, std::thread::ScopedJoinHandle<'_, Said>)| {
                (server.to_owned(), thread.join().expect("typing does not panic"))
            };
            threads.into_iter().map(said).collect()
        })
    }

    /// Types a line that must succeed or fail as the row has it, and say what is expected.
    fn holds(&self, row: &Row, line: &str, answers: &str, succeeds: bool, says: &[&str]) {
        let patience_ends = Instant::now() + PATIENCE;
        loop {
            let answered = self.types(row, line, answers);
            let waits = row.waits_for();
            let said_all = |said: &Said| waits.iter().all(|text| said.text.contains(text));
            if succeeds && !answered.values().all(said_all) && Instant::now() < patience_ends {
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
            for (place, Said { success, text }) in &answered {
                let told = format!("docs/tutorial.md:{}: {place}# {line}\n{text}", row.number);
                assert_eq!(*success, succeeds, "{told}\n({})", row.about);
                for expected in says.iter().chain(if succeeds { &waits[..] } else { &[] }) {
                    assert!(text.contains(expected), "{told}\ndoes not say {expected:?}");
                }
            }
            return;
        }
    }

    fn follows(&self, rows: &[Row]) {
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| !at_prompt(row)) {
            let prompts: Vec<&Row> = rows[index + 1..].iter().take_while(|row| at_prompt(row)).collect();
            let answers: String = prompts.iter().filter_map(|row| Some(row.today.clone()? + "\n")).collect();
            let says: Vec<&str> = [row.says(), prompts.iter().flat_map(|row| row.says()).collect()].concat();
            let begun = Instant::now();
            if row.now == Now::Instead {
                let line = row.tutorial.as_ref().expect("a line to mend");
                self.holds(row, line, "", false, &says);
            }
            if let Some(line) = &row.today {
                let says = if row.now == Now::Instead { &[][..] } else { &says };
                self.holds(row, line, &answers, row.now != Now::NotYet, says);
            }
            eprintln!(
                "{:4} {:5.1} s  {}: {:?}",
                row.number,
                begun.elapsed().as_secs_f64(),
                row.place,
                row.now
            );
        }
    }
}

fn at_prompt(row: &Row) -> bool {
    PROMPTS.contains(&row.place.as_str())
}

#[test]
fn every_row_is_typed_or_says_why_not() {
    let rows = parts().concat();
    assert!(rows.len() > 120, "the tutorial has more lines than {}", rows.len());
    for row in rows {
        let at = format!("docs/tutorial.md:{}", row.number);
        let known = GROUPS.iter().any(|(name, servers)| *name == row.place || servers.contains(&&*row.place));
        assert!(known || row.place == "cloud" || at_prompt(&row), "{at}: where is {}?", row.place);
        let works = matches!(row.now, Now::Yes | Now::Instead);
        assert!(row.today.is_some() || !works, "{at}: works, and is not typed");
        assert!(row.today.is_none() || row.now != Now::NotNeeded, "{at}: not needed, and typed");
        assert!(row.now == Now::Yes || row.about.len() >= 15, "{at}: gives no reason");
    }
}

#[test]
fn part_a() {
    if !can_run("part_a") {
        return;
    }
    Reader::new("tutorial-a").follows(&parts()[0]);
}

#[test]
fn part_b() {
    if !can_run("part_b") {
        return;
    }
    // The servers have the host's programs.
    for program in ["nginx", "curl", "iptables-restore"] {
        let found =
            ["/usr/sbin", "/usr/bin", "/sbin"].iter().any(|place| Path::new(place).join(program).exists());
        if !found {
            eprintln!("skip part_b: no {program}");
            return;
        }
    }
    Reader::new("tutorial-b").follows(&parts()[1]);
}
