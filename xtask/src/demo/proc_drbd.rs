//! The text of `lockstep proc drbd`, read as a person reads it.

/// The first minor.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Device {
    /// `Connected`, `SyncSource`, …
    pub connection: String,
    /// Ours and the peer's: `Primary/Secondary`.
    pub roles: String,
    /// Ours and the peer's: `UpToDate/Inconsistent`.
    pub disks: String,
    /// While it resyncs.
    pub resync: Option<Resync>,
}

/// The lines of a resync.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Resync {
    /// `[==>....]`
    pub bar: String,
    /// Tenths of a percent that are in sync.
    pub permille: u32,
    /// Remaining time: `0:00:07`.
    pub finish: String,
    /// Speed of late.
    pub kib_per_s: u64,
}

impl Device {
    /// None if there is no minor in the text.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self {
            connection: word_after(text, " cs:")?.to_owned(),
            roles: word_after(text, " ro:")?.to_owned(),
            disks: word_after(text, " ds:")?.to_owned(),
            resync: resync(text),
        })
    }
}

fn resync(text: &str) -> Option<Resync> {
    let line = text.lines().find(|line| line.contains("sync'ed:"))?;
    let bar = line.get(line.find('[')?..=line.find(']')?)?.to_owned();
    let digits = |word: &str| word.chars().filter(char::is_ascii_digit).collect::<String>();
    let permille = digits(word_after(line, "sync'ed:")?.trim_end_matches('%')).parse().ok()?;
    let finish = word_after(text, "finish:")?.to_owned();
    let kib_per_s = digits(word_after(text, "speed:")?).parse().ok()?;
    Some(Resync { bar, permille, finish, kib_per_s })
}

fn word_after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(label)?;
    rest.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::{Device, Resync};

    const HEAD: &str = "version: 8.3.11 (api:88/proto:86-96)\nsrcversion: 71955441799F513ACA6DA60 \n";

    #[test]
    fn a_resync_and_its_end() {
        let text = format!(
            "{HEAD} 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n    \
             ns:242176 nr:0 dw:0 dr:242176 al:8 bm:16 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:739260\n\
             \t[===>................] sync'ed: 24.7% (739260/976828)K\n\
             \tfinish: 0:00:07 speed: 102,460 (102,460) K/sec\n"
        );
        let device = Device::parse(&text).expect("a minor");
        assert_eq!(device.connection, "SyncSource");
        assert_eq!(device.roles, "Primary/Secondary");
        let resync = Resync {
            bar: "[===>................]".into(),
            permille: 247,
            finish: "0:00:07".into(),
            kib_per_s: 102_460,
        };
        assert_eq!(device.resync, Some(resync));

        let text = format!("{HEAD} 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n");
        let device = Device::parse(&text).expect("a minor");
        assert_eq!((device.disks.as_str(), device.resync), ("UpToDate/UpToDate", None));
    }

    #[test]
    fn the_last_percent_and_no_minor() {
        let text = " 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n\
                    \t[===================>] sync'ed:100.0% (4/976828)K\n\tfinish: 0:00:00 speed: 7 (7) K/sec\n";
        let permille = Device::parse(text).and_then(|device| device.resync).map(|resync| resync.permille);
        assert_eq!(permille, Some(1000));
        assert_eq!(Device::parse(HEAD), None);
    }
}
