//! The one table of options: name, section, spelling of 8.3, kind, limits.
//!
//! Upstream: drbd.conf(5) of 8.3 and 8.4, `drbd_limits.h`, the enums of `linux/drbd.h`. Whatever parses, dumps or
//! looks up an option does it from here.

use super::value::Scale;

/// A section that holds options.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Section {
    /// `net`.
    Net,
    /// `disk`.
    Disk,
    /// `options`.
    Options,
    /// `startup`.
    Startup,
    /// `handlers`.
    Handlers,
    /// Options of the command `resize`; no configuration has them.
    Resize,
}

impl Section {
    /// Its keyword.
    pub fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Disk => "disk",
            Self::Options => "options",
            Self::Startup => "startup",
            Self::Handlers => "handlers",
            Self::Resize => "resize",
        }
    }
}

/// What values an option takes, and what it is without one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A number in units of `scale`; the limits too.
    Number {
        /// Lowest.
        min: u64,
        /// Highest.
        max: u64,
        /// Without the option.
        default: u64,
        /// What a bare number counts.
        scale: Scale,
        /// The same in words, empty for plain counts.
        unit: &'static str,
    },
    /// `yes` or `no`; without a value `yes`.
    Flag {
        /// Without the option.
        default: bool,
        /// `no-NAME;` is its spelling of 8.3.
        negated_83: bool,
    },
    /// One of these words with upstream's numbers; the first is the default.
    Choice(&'static [(&'static str, u32)]),
    /// `A`, `B` or `C`, in either case.
    Protocol,
    /// Any text of at most so many bytes.
    Text {
        /// Bound.
        bytes_max: usize,
    },
    /// Read and forgotten, as the original does: options of long ago.
    Forgotten,
}

/// One option.
#[derive(Debug)]
pub struct OptionDef {
    /// Its name in 8.4.
    pub name: &'static str,
    /// Its section in 8.4.
    pub section: Section,
    /// What it takes.
    pub kind: Kind,
    /// Whether 8.3 had it in the syncer section.
    pub syncer_83: bool,
    /// Its name in 8.3, if another.
    pub name_83: Option<&'static str>,
    /// Whether the daemon acts on it; else it is read, shown and has no effect.
    pub has_effect: bool,
}

impl OptionDef {
    const fn new(section: Section, name: &'static str, kind: Kind) -> Self {
        Self { name, section, kind, syncer_83: false, name_83: None, has_effect: false }
    }

    const fn effective(self) -> Self {
        Self { has_effect: true, ..self }
    }

    const fn syncer(self) -> Self {
        Self { syncer_83: true, ..self }
    }

    const fn once(self, name_83: &'static str) -> Self {
        Self { name_83: Some(name_83), ..self }
    }

    /// Whether its value must not be shown.
    pub fn is_secret(&self) -> bool {
        self.name == "shared-secret"
    }

    /// Whether `word` means this option, in either spelling.
    pub fn is_named(&self, word: &str) -> bool {
        self.name == word || self.name_83 == Some(word)
    }
}

/// The option called `word` in `section`.
pub fn find(section: Section, word: &str) -> Option<&'static OptionDef> {
    OPTIONS.iter().chain(RESIZE_OPTIONS).find(|option| option.section == section && option.is_named(word))
}

/// The option called `word` in the syncer section of 8.3.
pub fn find_syncer(word: &str) -> Option<&'static OptionDef> {
    OPTIONS.iter().find(|option| option.syncer_83 && option.is_named(word))
}

/// The flag that `word` switches off in the spelling of 8.3 (`no-disk-barrier`).
pub fn find_negated(section: Section, word: &str) -> Option<&'static OptionDef> {
    let name = word.strip_prefix("no-")?;
    find(section, name).filter(|option| matches!(option.kind, Kind::Flag { negated_83: true, .. }))
}

/// An option of any section.
pub fn find_anywhere(word: &str) -> Option<&'static OptionDef> {
    OPTIONS.iter().find(|option| option.is_named(word))
}

/// Names of the options of a section.
pub fn names(section: Section) -> impl Iterator<Item = &'static str> {
    let all = OPTIONS.iter().chain(RESIZE_OPTIONS);
    all.filter(move |option| option.section == section).map(|option| option.name)
}

/// Options that DRBD 9 has and 8.4 has not, for a better word than "unknown".
pub const ONLY_IN_9: &[&str] = &[
    "allow-remote-read",
    "auto-promote",
    "auto-promote-timeout",
    "block-size",
    "max-io-depth",
    "node-id",
    "on-no-quorum",
    "on-suspended-primary-outdated",
    "peer-ack-delay",
    "peer-ack-window",
    "quorum",
    "quorum-minimum-redundancy",
    "rdma-ctrl-rcvbuf-size",
    "rdma-ctrl-sndbuf-size",
    "tls",
    "transport",
    "twopc-retry-timeout",
    "twopc-timeout",
];

const fn number(min: u64, max: u64, default: u64, scale: Scale, unit: &'static str) -> Kind {
    Kind::Number { min, max, default, scale, unit }
}

const fn count(min: u64, max: u64, default: u64) -> Kind {
    number(min, max, default, Scale::One, "")
}

const fn tenths(min: u64, max: u64, default: u64) -> Kind {
    number(min, max, default, Scale::One, "tenths of a second")
}

const fn seconds(min: u64, max: u64, default: u64) -> Kind {
    number(min, max, default, Scale::One, "seconds")
}

const fn flag(default: bool) -> Kind {
    Kind::Flag { default, negated_83: false }
}

const fn flag_negated_83(default: bool) -> Kind {
    Kind::Flag { default, negated_83: true }
}

const fn text(bytes_max: usize) -> Kind {
    Kind::Text { bytes_max }
}

const fn net(name: &'static str, kind: Kind) -> OptionDef {
    OptionDef::new(Section::Net, name, kind)
}

const fn disk(name: &'static str, kind: Kind) -> OptionDef {
    OptionDef::new(Section::Disk, name, kind)
}

const fn handler(name: &'static str) -> OptionDef {
    OptionDef::new(Section::Handlers, name, text(255))
}

/// `SHARED_SECRET_MAX`: bytes of a secret or of a digest's name.
const SECRET_BYTES_MAX: usize = 64;

const RATE_MAX_KIB_PER_S: u64 = 4 << 20;
const AL_EXTENTS_MIN: u64 = 67;
const AL_EXTENTS_MAX: u64 = 0xfffe;
const AL_EXTENTS_DEFAULT: u64 = 1237;
const SOCKET_BUFFER_BYTES_MAX: u64 = 10 << 20;
const WFC_TIMEOUT_S_MAX: u64 = 300_000;

/// `enum drbd_after_sb_p`.
const AFTER_SB_0PRI: &[(&str, u32)] = &[
    ("disconnect", 0),
    ("discard-younger-primary", 1),
    ("discard-older-primary", 2),
    ("discard-zero-changes", 3),
    ("discard-least-changes", 4),
    ("discard-local", 5),
    ("discard-remote", 6),
];

const AFTER_SB_1PRI: &[(&str, u32)] = &[
    ("disconnect", 0),
    ("consensus", 7),
    ("discard-secondary", 8),
    ("call-pri-lost-after-sb", 9),
    ("violently-as0p", 10),
];

const AFTER_SB_2PRI: &[(&str, u32)] =
    &[("disconnect", 0), ("call-pri-lost-after-sb", 9), ("violently-as0p", 10)];

const READ_BALANCING: &[(&str, u32)] = &[
    ("prefer-local", 0),
    ("prefer-remote", 1),
    ("round-robin", 2),
    ("least-pending", 3),
    ("when-congested-remote", 4),
    ("32K-striping", 5),
    ("64K-striping", 6),
    ("128K-striping", 7),
    ("256K-striping", 8),
    ("512K-striping", 9),
    ("1M-striping", 10),
];

/// The options of `resize`.
static RESIZE_OPTIONS: &[OptionDef] = &[
    OptionDef::new(Section::Resize, "size", number(0, 2 << 40, 0, Scale::Sectors, "sectors")).effective(),
    OptionDef::new(Section::Resize, "assume-peer-has-space", flag(false)).effective(),
    OptionDef::new(Section::Resize, "assume-clean", flag(false)).effective(),
    OptionDef::new(Section::Resize, "al-stripes", count(1, 1024, 1)).effective(),
    OptionDef::new(Section::Resize, "al-stripe-size-kB", number(4, 16_777_216, 32, Scale::Kib, "KiB"))
        .effective(),
];

/// Every option of drbd.conf.
pub static OPTIONS: &[OptionDef] = &[
    net("protocol", Kind::Protocol).effective(),
    net("timeout", tenths(1, 600, 60)).effective(),
    net("max-epoch-size", count(1, 20_000, 2048)).effective(),
    net("max-buffers", count(32, 131_072, 2048)).effective(),
    net("unplug-watermark", count(1, 131_072, 128)),
    net("connect-int", seconds(1, 120, 10)).effective(),
    net("ping-int", seconds(1, 120, 10)).effective(),
    net("sndbuf-size", number(0, SOCKET_BUFFER_BYTES_MAX, 0, Scale::One, "bytes")).effective(),
    net("rcvbuf-size", number(0, SOCKET_BUFFER_BYTES_MAX, 0, Scale::One, "bytes")).effective(),
    net("ko-count", count(0, 200, 7)).effective(),
    net("allow-two-primaries", flag(false)).effective(),
    net("cram-hmac-alg", text(SECRET_BYTES_MAX)).effective(),
    net("shared-secret", text(SECRET_BYTES_MAX)).effective(),
    net("after-sb-0pri", Kind::Choice(AFTER_SB_0PRI)).effective(),
    net("after-sb-1pri", Kind::Choice(AFTER_SB_1PRI)).effective(),
    net("after-sb-2pri", Kind::Choice(AFTER_SB_2PRI)).effective(),
    net("always-asbp", flag(false)).effective(),
    net("rr-conflict", Kind::Choice(&[("disconnect", 0), ("call-pri-lost", 9), ("violently", 10)]))
        .effective(),
    net("ping-timeout", tenths(1, 300, 5)).effective(),
    net("data-integrity-alg", text(SECRET_BYTES_MAX)).effective(),
    net("tcp-cork", flag_negated_83(true)).effective(),
    net("on-congestion", Kind::Choice(&[("block", 0), ("pull-ahead", 1), ("disconnect", 2)])),
    net("congestion-fill", number(0, 10 << 21, 0, Scale::Sectors, "sectors")),
    net("congestion-extents", count(AL_EXTENTS_MIN, AL_EXTENTS_MAX, AL_EXTENTS_DEFAULT)),
    net("csums-alg", text(SECRET_BYTES_MAX)).syncer().effective(),
    net("csums-after-crash-only", flag(false)).effective(),
    net("verify-alg", text(SECRET_BYTES_MAX)).syncer().effective(),
    net("use-rle", flag(true)).syncer().effective(),
    net("socket-check-timeout", tenths(0, 300, 0)),
    disk("size", number(0, 2 << 40, 0, Scale::Sectors, "sectors")).effective(),
    disk("on-io-error", Kind::Choice(&[("detach", 2), ("pass_on", 0), ("call-local-io-error", 1)]))
        .effective(),
    disk("fencing", Kind::Choice(&[("dont-care", 0), ("resource-only", 1), ("resource-and-stonith", 2)]))
        .effective(),
    disk("max-bio-bvecs", count(0, 128, 0)),
    disk("disk-timeout", tenths(0, 6000, 0)),
    disk("read-balancing", Kind::Choice(READ_BALANCING)),
    disk("rs-discard-granularity", number(0, 1 << 20, 0, Scale::One, "bytes")).effective(),
    disk("disable-write-same", flag(false)),
    disk("use-bmbv", flag(false)),
    disk("disk-barrier", flag_negated_83(false)),
    disk("disk-flushes", flag_negated_83(true)).effective(),
    disk("disk-drain", flag_negated_83(true)),
    disk("md-flushes", flag_negated_83(true)).effective(),
    disk("resync-rate", number(1, RATE_MAX_KIB_PER_S, 250, Scale::Kib, "KiB/s"))
        .syncer()
        .once("rate")
        .effective(),
    disk("resync-after", text(128)).syncer().once("after"),
    disk("al-extents", count(AL_EXTENTS_MIN, AL_EXTENTS_MAX, AL_EXTENTS_DEFAULT)).syncer().effective(),
    disk("al-updates", flag(true)),
    disk("discard-zeroes-if-aligned", flag(true)).effective(),
    disk("c-plan-ahead", tenths(0, 300, 20)).syncer().effective(),
    disk("c-delay-target", tenths(1, 100, 10)).syncer().effective(),
    disk("c-fill-target", number(0, 1 << 20, 100, Scale::Sectors, "sectors")).syncer().effective(),
    disk("c-max-rate", number(250, RATE_MAX_KIB_PER_S, 102_400, Scale::Kib, "KiB/s")).syncer().effective(),
    disk("c-min-rate", number(0, RATE_MAX_KIB_PER_S, 250, Scale::Kib, "KiB/s")).syncer().effective(),
    disk("delay-probe-volume", Kind::Forgotten).syncer(),
    disk("delay-probe-interval", Kind::Forgotten).syncer(),
    disk("throttle-threshold", Kind::Forgotten).syncer(),
    disk("hold-off-threshold", Kind::Forgotten).syncer(),
    OptionDef::new(Section::Options, "cpu-mask", text(64)).syncer(),
    OptionDef::new(
        Section::Options,
        "on-no-data-accessible",
        Kind::Choice(&[("io-error", 0), ("suspend-io", 1)]),
    )
    .syncer(),
    OptionDef::new(Section::Startup, "wfc-timeout", seconds(0, WFC_TIMEOUT_S_MAX, 0)).effective(),
    OptionDef::new(Section::Startup, "degr-wfc-timeout", seconds(0, WFC_TIMEOUT_S_MAX, 0)).effective(),
    OptionDef::new(Section::Startup, "outdated-wfc-timeout", seconds(0, WFC_TIMEOUT_S_MAX, 0)).effective(),
    OptionDef::new(Section::Startup, "wait-after-sb", flag(false)).effective(),
    handler("pri-on-incon-degr"),
    handler("pri-lost-after-sb"),
    handler("pri-lost"),
    handler("initial-split-brain"),
    handler("split-brain"),
    handler("fence-peer").once("outdate-peer"),
    handler("unfence-peer"),
    handler("local-io-error"),
    handler("before-resync-target"),
    handler("after-resync-target"),
    handler("before-resync-source"),
    handler("out-of-sync"),
];

#[cfg(test)]
mod tests {
    use drbd_engine::admin::{DiskOptions, NetOptions};

    use super::*;

    /// The engine's defaults and the table's are the same numbers, for every option the engine knows.
    #[test]
    fn defaults_agree_with_the_engine() {
        let disk = serde_json::to_value(DiskOptions::default()).unwrap();
        let net = serde_json::to_value(NetOptions::default()).unwrap();
        for option in OPTIONS.iter().filter(|o| o.has_effect && o.section != Section::Startup) {
            let fields = if option.section == Section::Net { &net } else { &disk };
            let stem = option.name.replace('-', "_");
            let (_, field) = fields
                .as_object()
                .unwrap()
                .iter()
                .filter(|(name, _)| name.starts_with(&stem))
                .min_by_key(|(name, _)| name.len())
                .unwrap_or_else(|| panic!("{} is not in the engine's options", option.name));
            let expected: serde_json::Value = match option.kind {
                Kind::Number { default, .. } => default.into(),
                Kind::Flag { default, .. } => default.into(),
                Kind::Choice(choices) => choices[0].1.into(),
                Kind::Protocol => "C".into(),
                Kind::Text { .. } | Kind::Forgotten => "".into(),
            };
            assert_eq!(*field, expected, "{}", option.name);
        }
    }

    #[test]
    fn every_name_is_there_once() {
        for (index, option) in OPTIONS.iter().enumerate() {
            let later = &OPTIONS[index + 1..];
            assert!(!later.iter().any(|other| other.is_named(option.name)), "{}", option.name);
        }
    }
}
