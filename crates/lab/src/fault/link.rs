//! A server's cables: pulled and plugged in again.

use super::Cables;
use crate::error::Result;
use crate::events::{self, Kind};
use crate::fabric;
use crate::life::Life;
use crate::place::Lab;
use crate::state::Records;

/// Pulls (`up` false) or plugs in the cables `SERVER[:NETWORK]`. The server sees its carrier go. Lasts over reboots.
///
/// # Errors
/// No such server or network, or the server has no interface there.
pub fn set(lab: &Lab, wanted: &str, up: bool) -> Result<()> {
    let (kind, word) = if up { (Kind::Heal, "link-up") } else { (Kind::Fault, "link-down") };
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let cables = Cables::named(&records, &format!("fault {word}"), wanted)?;
    let running = Life::running(lab, cables.server.id)?.is_some();
    for &index in &cables.indices {
        if running {
            fabric::set_carrier(lab, cables.server.id, index, up)?;
        }
        if let Some(record) = records.server_mut(cables.server.id) {
            record.nics[index].unplugged = !up;
        }
    }
    records.save(lab, &lock)?;
    events::append(lab, kind, &[word, &cables.word()])
}
