//! Silence: between two servers, or on a whole network. Nobody sees a carrier go; frames are just gone.

use super::record::Silence;
use crate::error::{Error, Result};
use crate::events::{self, Kind};
use crate::fabric;
use crate::place::Lab;
use crate::state::Records;

/// Lets two servers no longer hear each other on any network, or with `one_way` the second no longer the first.
/// Lasts over reboots.
///
/// # Errors
/// No such servers, or one server twice.
pub fn partition(lab: &Lab, a: &str, b: &str, one_way: bool) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let (a, b) =
        (records.server("fault partition", a)?.clone(), records.server("fault partition", b)?.clone());
    if a.id == b.id {
        return Err(Error::refused(format!("fault partition: {} is one server, name two", a.name)));
    }
    let there = Silence { from: a.id, to: b.id };
    let back = Silence { from: b.id, to: a.id };
    let wanted = [Some(there), (!one_way).then_some(back)];
    for silence in wanted.into_iter().flatten() {
        if !records.faults.silences.contains(&silence) {
            records.faults.silences.push(silence);
        }
    }
    fabric::apply_partitions(lab, &records)?;
    records.save(lab, &lock)?;
    let words = ["partition", &a.name, &b.name].into_iter().chain(one_way.then_some("--one-way"));
    events::append(lab, Kind::Fault, &words.collect::<Vec<_>>())
}

/// Cuts a network: its switch passes no more frames, between whichever servers; or mends it. Lasts over reboots.
///
/// # Errors
/// No such network.
pub fn set_cut(lab: &Lab, wanted: &str, cut: bool) -> Result<()> {
    let (kind, word) = if cut { (Kind::Fault, "cut") } else { (Kind::Heal, "mend") };
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let network = records.network(&format!("fault {word}"), wanted)?.clone();
    records.faults.cuts.retain(|&other| other != network.id);
    if cut {
        records.faults.cuts.push(network.id);
    }
    fabric::apply_cuts(lab, &records)?;
    records.save(lab, &lock)?;
    events::append(lab, kind, &[word, &network.label])
}
