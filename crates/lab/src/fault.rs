//! Faults that a lab can inject, and what undoes them: `lockstep lab fault …`.
//!
//! A fault is recorded before anything else sees it, so that it lasts as long as the broken part would: a pulled
//! cable over reboots, a pause until the server's end. [`list`] tells what is in force, [`heal`] undoes it.

pub mod cable;
pub mod clock;
pub mod command;
pub mod heal;
pub mod link;
pub mod list;
pub mod network;
pub mod record;
pub mod server;

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::state::{Network, Records, Server};

/// A server's cables: all of them, or those to one network.
#[derive(Debug)]
struct Cables {
    server: Server,
    network: Option<Network>,
    /// Which interfaces; never empty.
    indices: Vec<usize>,
}

impl Cables {
    /// Those that a user means by `SERVER` or `SERVER:NETWORK`; `verb` names the command in messages.
    ///
    /// # Errors
    /// No such server or network, or the server has no interface there.
    fn named(records: &Records, verb: &str, wanted: &str) -> Result<Self> {
        let (server, network) = match wanted.split_once(':') {
            Some((server, network)) => (server, Some(network)),
            None => (wanted, None),
        };
        let server = records.server(verb, server)?.clone();
        let network = network.map(|network| records.network(verb, network).cloned()).transpose()?;
        let on_it = |id: Uuid| network.as_ref().is_none_or(|network| network.id == id);
        let nics = server.nics.iter().enumerate();
        let indices: Vec<usize> =
            nics.filter(|(_, nic)| on_it(nic.network)).map(|(index, _)| index).collect();
        if indices.is_empty() {
            let place =
                network.map_or("any network".to_owned(), |network| format!("network {}", network.label));
            return Err(Error::refused(format!(
                "{verb}: server {} has no interface on {place}",
                server.name
            )));
        }
        Ok(Self { server, network, indices })
    }

    /// As a user types it.
    fn word(&self) -> String {
        match &self.network {
            Some(network) => format!("{}:{}", self.server.name, network.label),
            None => self.server.name.clone(),
        }
    }
}
