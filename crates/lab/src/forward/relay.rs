//! The connections of one forward: each is met on the host's loopback and begun anew in the server's network.

use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Doing, Error, Result};
use crate::life::Life;
use crate::netns;
use crate::place::Lab;
use crate::state::Records;

/// Connections that are carried at once; further ones wait.
const CONNECTIONS_MAX: usize = 64;

/// Time for each address of the server to answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Time before trying again when this process can open no more sockets for the moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Relay {
    lab: Lab,
    server: String,
    server_port: u16,
    carried: Mutex<usize>,
    place_is_free: Condvar,
    /// Why the last connection was refused; said once, not for each of a browser's many.
    said: Mutex<String>,
}

/// One of the places; given back when the connection ends, however it does.
struct Place(Arc<Relay>);

impl Place {
    fn wait(relay: &Arc<Relay>) -> Self {
        let carried = relay.carried.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |carried: &mut usize| *carried >= CONNECTIONS_MAX;
        let mut carried =
            relay.place_is_free.wait_while(carried, full).unwrap_or_else(PoisonError::into_inner);
        *carried += 1;
        Self(relay.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.carried.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.place_is_free.notify_one();
    }
}

/// Carries what comes to these listeners, on threads of its own, until the process ends.
///
/// # Errors
/// No thread could be started.
pub fn start(lab: &Lab, listeners: Vec<TcpListener>, server: String, server_port: u16) -> Result<()> {
    let relay = Arc::new(Relay {
        lab: lab.clone(),
        server,
        server_port,
        carried: Mutex::new(0),
        place_is_free: Condvar::new(),
        said: Mutex::default(),
    });
    for listener in listeners {
        let relay = relay.clone();
        thread::Builder::new()
            .spawn(move || accept(&relay, &listener))
            .doing(|| "start a thread of the forward".into())?;
    }
    Ok(())
}

fn accept(relay: &Arc<Relay>, listener: &TcpListener) {
    loop {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let place = Place::wait(relay);
        // Without a thread the connection ends at once, and its place is free again.
        let _ = thread::Builder::new().spawn(move || {
            let relay = &place.0;
            let why = match relay.reach() {
                Ok(server) => {
                    carry(&client, &server);
                    String::new()
                }
                Err(error) => {
                    refuse(&client);
                    error.to_string()
                }
            };
            relay.say(why);
        });
    }
}

/// Ends a connection so that the other side sees it was refused, not that it was answered with nothing.
fn refuse(client: &TcpStream) {
    // Closing it then sends a reset.
    let _ = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
}

impl Relay {
    /// Connects inside the server's network to the first of its addresses that takes it. Loopback is none of them:
    /// what a server offers there is not for others.
    fn reach(&self) -> Result<TcpStream> {
        let Self { lab, server: name, server_port, .. } = self;
        let records = Records::load(lab)?;
        let server = records.server("forward", name)?;
        let off = || Error::refused(format!("forward: server {name} is off; `nova start {name}` boots it"));
        let life = Life::running(lab, server.id)?.ok_or_else(off)?;
        let namespaces = life.init.pidfd().ok_or_else(off)?;
        let v4 = server.nics.iter().map(|nic| IpAddr::V4(nic.address));
        let v6 = server.nics.iter().filter_map(|nic| nic.address_v6.map(IpAddr::V6));
        let addresses: Vec<IpAddr> = v4.chain(v6).collect();
        let connect = || {
            let mut last = io::Error::other("it has no interface");
            for &address in &addresses {
                match TcpStream::connect_timeout(&(address, *server_port).into(), CONNECT_PATIENCE) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        netns::inside(namespaces.as_fd(), connect)
            .doing(|| format!("forward: server {name} port {server_port}"))
    }

    fn say(&self, why: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !why.is_empty() && *said != why {
            // A terminal that has gone away needs no message.
            let _ = writeln!(io::stderr(), "{why}");
        }
        *said = why;
    }
}

/// Carries bytes both ways until both ways have ended. One that ends does not end the other.
fn carry(client: &TcpStream, server: &TcpStream) {
    thread::scope(|scope| {
        let back = thread::Builder::new().spawn_scoped(scope, || one_way(server, client));
        if back.is_ok() {
            one_way(client, server);
        }
    });
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    if io::copy(&mut from, &mut to).is_ok() {
        let _ = to.shutdown(Shutdown::Write);
        return;
    }
    // One side is gone: nothing that the other still sends would be heard.
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
