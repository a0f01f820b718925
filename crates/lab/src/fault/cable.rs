//! Bad cables: frames that are lost or late, and how many pass in a time.

use super::Cables;
use crate::error::Result;
use crate::events::{self, Kind};
use crate::place::Lab;
use crate::state::Records;
use crate::wire;
use crate::wire::quality::{Quality, Wire};

/// Which frames a fault is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// What the server receives.
    In,
    /// What it sends.
    Out,
    /// All.
    Both,
}

impl Way {
    fn word(self) -> Option<&'static str> {
        match self {
            Self::In => Some("--in"),
            Self::Out => Some("--out"),
            Self::Both => None,
        }
    }
}

/// One property of a cable. 0 undoes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ailment {
    /// Percent of the frames.
    Loss(f64),
    /// Milliseconds, and how far they vary.
    Delay(f64, f64),
    /// Megabits per second.
    Rate(f64),
}

impl Ailment {
    /// The words after `lockstep lab fault` that bring it about.
    fn words(self, cables: &str, way: Option<&str>) -> Vec<String> {
        let mut words = match self {
            Self::Loss(percent) => vec!["loss".to_owned(), cables.to_owned(), percent.to_string()],
            Self::Delay(ms, jitter_ms) => {
                let mut words = vec!["delay".to_owned(), cables.to_owned(), ms.to_string()];
                if jitter_ms > 0.0 {
                    words.extend(["--jitter".to_owned(), jitter_ms.to_string()]);
                }
                words
            }
            Self::Rate(mbit) => vec!["rate".to_owned(), cables.to_owned(), mbit.to_string()],
        };
        words.extend(way.map(str::to_owned));
        words
    }

    fn is_none(self) -> bool {
        matches!(self, Self::Loss(0.0) | Self::Delay(0.0, _) | Self::Rate(0.0))
    }

    fn apply(self, quality: &mut Quality) {
        match self {
            Self::Loss(percent) => quality.loss_percent = percent,
            Self::Delay(ms, jitter_ms) => (quality.delay_ms, quality.jitter_ms) = (ms, jitter_ms),
            Self::Rate(mbit) => quality.rate_mbit = mbit,
        }
    }

    /// What ails a way.
    fn all(quality: &Quality) -> Vec<Self> {
        let all = [
            Self::Loss(quality.loss_percent),
            Self::Delay(quality.delay_ms, quality.jitter_ms),
            Self::Rate(quality.rate_mbit),
        ];
        all.into_iter().filter(|ailment| !ailment.is_none()).collect()
    }

    fn meaning(self) -> String {
        match self {
            Self::Loss(percent) => format!("{percent} % of the frames are lost"),
            Self::Delay(ms, 0.0) => format!("frames come {ms} ms late"),
            Self::Delay(ms, jitter_ms) => format!("frames come {ms} ms late, {jitter_ms} ms more or less"),
            Self::Rate(mbit) => format!("{mbit} Mbit/s pass"),
        }
    }
}

/// Gives the cables `SERVER[:NETWORK]` a bad property, or takes it from them. Lasts over reboots.
///
/// # Errors
/// No such server or network, the server has no interface there, or what the system says.
pub fn set(lab: &Lab, wanted: &str, ailment: Ailment, way: Way) -> Result<()> {
    let lock = lab.lock()?;
    let before = Records::load(lab)?;
    let mut records = before.clone();
    let words = ailment.words("", way.word());
    let cables = Cables::named(&records, &format!("fault {}", words[0]), wanted)?;
    for &index in &cables.indices {
        let wire = records.faults.wire_mut(cables.server.id, index);
        if way != Way::Out {
            ailment.apply(&mut wire.inbound);
        }
        if way != Way::In {
            ailment.apply(&mut wire.outbound);
        }
    }
    records.faults.wires.retain(|wire| !wire.inbound.is_perfect() || !wire.outbound.is_perfect());
    if let Err(error) = wire::apply(lab, &records).and_then(|()| records.save(lab, &lock)) {
        // As it was; why not is what the first error says.
        let _ = wire::apply(lab, &before);
        return Err(error);
    }
    let kind = if ailment.is_none() { Kind::Heal } else { Kind::Fault };
    events::append(lab, kind, &ailment.words(&cables.word(), way.word()))
}

/// What ails a cable, each as its words and its meaning.
pub fn in_force(cable: &str, wire: &Wire) -> Vec<(Vec<String>, String)> {
    let (inbound, outbound) = (Ailment::all(&wire.inbound), Ailment::all(&wire.outbound));
    let both: Vec<Ailment> = inbound.iter().copied().filter(|ailment| outbound.contains(ailment)).collect();
    let only = |ailments: &[Ailment], way: Way| -> Vec<(Ailment, Way)> {
        ailments.iter().filter(|ailment| !both.contains(ailment)).map(|&ailment| (ailment, way)).collect()
    };
    let all = both.iter().map(|&ailment| (ailment, Way::Both));
    all.chain(only(&inbound, Way::In))
        .chain(only(&outbound, Way::Out))
        .map(|(ailment, way)| {
            let place = match way {
                Way::In => "to",
                Way::Out => "from",
                Way::Both => "to and from",
            };
            (ailment.words(cable, way.word()), format!("{place} {cable}, {}", ailment.meaning()))
        })
        .collect()
}
