//! `lockstep lab ps`: what labs there are on this machine, and what of them runs.

use serde_json::{Value, json};

use crate::down;
use crate::forward;
use crate::interfaces;
use crate::life::Life;
use crate::place::Lab;
use crate::state::Records;
use crate::store;
use crate::table::render;

/// What another version of this program made.
const UNREADABLE: &str = "UNREADABLE";

/// One line a server and a volume, of every lab.
pub fn table() -> String {
    let mut rows = Vec::new();
    for lab in Lab::all() {
        let name = || lab.name().to_owned();
        let records = match Records::load(&lab) {
            Ok(records) => records,
            Err(error) => {
                let why = error.to_string();
                rows.push(vec![name(), "lab".into(), String::new(), UNREADABLE.into(), String::new(), why]);
                continue;
            }
        };
        let store = store::process(&lab);
        rows.push(vec![
            name(),
            "store".into(),
            String::new(),
            if store.is_some() { "ACTIVE".into() } else { "SHUTOFF".into() },
            store.map(|process| process.to_string()).unwrap_or_default(),
            String::new(),
        ]);
        for server in &records.servers {
            let (status, pid, details) = match Life::load(&lab, server.id) {
                Ok(life) => {
                    let status = Life::status(life.as_ref()).word().to_owned();
                    let pid = life.filter(|life| life.init.is_alive()).map(|life| life.init.to_string());
                    (status, pid.unwrap_or_default(), interfaces::listing(&records, server))
                }
                Err(error) => (UNREADABLE.into(), String::new(), error.to_string()),
            };
            rows.push(vec![name(), "server".into(), server.name.clone(), status, pid, details]);
        }
        for forward in forward::all(&lab) {
            rows.push(vec![
                name(),
                "forward".into(),
                forward.port.to_string(),
                "ACTIVE".into(),
                forward.process.to_string(),
                format!("to {}:{}", forward.server, forward.server_port),
            ]);
        }
        for volume in &records.volumes {
            let place = volume.attachment.as_ref().map(|attachment| {
                let server = records.server_by_id(attachment.server).map_or("?", |server| &server.name);
                format!("{server}:/dev/{}", attachment.device)
            });
            let status = if place.is_some() { "in-use" } else { "available" };
            let what = format!(
                "{} GB {}{}",
                volume.size_gib,
                volume.kind.word(),
                place.map_or(String::new(), |p| format!(", {p}"))
            );
            rows.push(vec![name(), "volume".into(), volume.called(), status.into(), String::new(), what]);
        }
    }
    render(&["Lab", "Kind", "Name", "Status", "PID", "Details"], &rows)
}

/// The same as JSON, with every process of each lab.
pub fn json() -> Value {
    let mut labs = Vec::new();
    for lab in Lab::all() {
        let records = match Records::load(&lab) {
            Ok(records) => records,
            Err(error) => {
                let pids: Vec<_> = down::processes(&lab).iter().map(|process| process.pid).collect();
                labs.push(json!({ "lab": lab.name(), "error": error.to_string(), "pids": pids }));
                continue;
            }
        };
        let mut servers = Vec::new();
        for server in &records.servers {
            servers.push(match Life::load(&lab, server.id) {
                Ok(life) => {
                    let status = Life::status(life.as_ref()).word();
                    let pid = life.filter(|life| life.init.is_alive()).map(|life| life.init.pid);
                    json!({ "id": server.id, "name": server.name, "status": status, "pid": pid })
                }
                Err(error) => {
                    json!({ "id": server.id, "name": server.name, "status": UNREADABLE, "error": error.to_string() })
                }
            });
        }
        labs.push(json!({
            "lab": lab.name(),
            "store_pid": store::process(&lab).map(|process| process.pid),
            "pids": down::processes(&lab).iter().map(|process| process.pid).collect::<Vec<_>>(),
            "servers": servers,
            "forwards": forward::all(&lab),
            "volumes": records.volumes,
            "networks": records.networks,
        }));
    }
    Value::Array(labs)
}
