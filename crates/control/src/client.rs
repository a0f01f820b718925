//! The tool's end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ControlError;
use crate::frame;
use crate::hello::{self, SERVER_HELLO_BYTES, Versions};

/// How the server wraps its answer.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer<R> {
    /// What the handler said.
    Reply(R),
    /// The request did not decode; why.
    NotUnderstood(String),
}

/// A connection to a daemon. Calls block.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    answer_timeout: Option<Duration>,
}

impl Client {
    /// Connects and greets; `timeout` bounds each step of that. Answers may take as long as they need until
    /// [`Client::set_answer_timeout`] says otherwise.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] if nobody listens, else what became of the greeting.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ControlError> {
        Self::connect_speaking(path, timeout, Versions::OURS)
    }

    pub(crate) fn connect_speaking(
        path: &Path,
        timeout: Duration,
        versions: Versions,
    ) -> Result<Self, ControlError> {
        let system = |step| move |source: io::Error| ControlError::System { step, path: path.into(), source };
        let mut stream = open(path, timeout).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ControlError::NotRunning { path: path.into() }
            }
            io::ErrorKind::WouldBlock => ControlError::Timeout { awaited: "accept", timeout },
            _ => system("connect to")(source),
        })?;
        stream.set_read_timeout(Some(timeout)).map_err(system("set timeout of"))?;
        // A server that has no place for us says so and closes without reading: its word counts, not our EPIPE.
        let sent = stream.write_all(&hello::client_hello(versions));
        let mut greeting = [0; SERVER_HELLO_BYTES];
        stream
            .read_exact(&mut greeting)
            .map_err(|source| ControlError::transfer("greeting", Some(timeout), source))?;
        hello::judge_server(versions, &greeting)?;
        sent.map_err(|source| ControlError::transfer("greeting", Some(timeout), source))?;
        stream.set_read_timeout(None).map_err(system("set timeout of"))?;
        Ok(Self { stream, answer_timeout: None })
    }

    /// Bounds how long a call waits for the next bytes of its answer; none: for ever.
    ///
    /// # Errors
    /// The system's refusal, such as for a timeout of zero.
    pub fn set_answer_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)?;
        self.answer_timeout = timeout;
        Ok(())
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// Whatever breaks the exchange. After one other than [`ControlError::NotUnderstood`] or
    /// [`ControlError::Decode`] the connection is of no more use.
    pub fn call<Q: Serialize, R: DeserializeOwned>(&mut self, request: &Q) -> Result<R, ControlError> {
        frame::send(&mut self.stream, "request", None, request)?;
        let bytes = frame::receive(&mut self.stream, "answer", self.answer_timeout)?;
        match frame::decode("answer", &bytes)? {
            Answer::Reply(reply) => Ok(reply),
            Answer::NotUnderstood(why) => Err(ControlError::NotUnderstood(why)),
        }
    }
}

/// Connects with a bound on the wait for a full backlog: `SO_SNDTIMEO` rules that of a unix socket.
fn open(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}
