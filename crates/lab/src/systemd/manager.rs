//! One question to the systemd of a server: whether it shuts down.
//!
//! A command such as `reboot` returns when the shutdown is queued, and the first unit stops a moment later. Only
//! process 1 knows of it in between. It listens on a unix socket, on which it talks D-Bus (the D-Bus specification,
//! "Message Protocol") without a bus: a handshake in text, then one call and its answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::life::Life;

/// In the server: systemd's own socket, for root.
const SOCKET: &str = "/run/systemd/private";

/// Time for an answer. systemd gives none while it reads its units again.
const PATIENCE: Duration = Duration::from_secs(10);

/// No message that we may see is longer.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// D-Bus numbers of what we use.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// D-Bus codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const SIGNATURE: u8 = 8;

/// Whether a shutdown or reboot of this life is queued or under way. For a process in the server's process namespace:
/// systemd answers to nobody whom it does not see.
///
/// # Errors
/// Process 1 does not answer: it is not that far yet, is past it, or is stopped.
pub fn is_stopping(life: &Life) -> io::Result<bool> {
    let mut stream = UnixStream::connect(life.path_in(SOCKET))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // `30` is user 0 in hexadecimal ASCII; systemd compares it with whom the kernel names.
    stream.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.by_ref().take(256).read_line(&mut line)?;
    if !line.starts_with("OK ") {
        return Err(io::Error::other(format!("systemd refuses to talk: {}", line.trim())));
    }
    // Only now: what it reads together with the handshake it looks at no more until something follows.
    stream.write_all(&call())?;
    let patience_ends = Instant::now() + PATIENCE;
    // Signals that everybody gets may come first.
    while Instant::now() < patience_ends {
        let (kind, body) = receive(&mut reader)?;
        match kind {
            METHOD_RETURN => return Ok(text_of(&body).ok_or_else(malformed)? == b"stopping"),
            ERROR => return Err(io::Error::other("systemd does not know its state")),
            _ => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an answer of systemd")
}

/// `Get` of the property that `systemctl is-system-running` prints.
fn call() -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, "org.freedesktop.systemd1.Manager");
    put_text(&mut body, "SystemState");
    let mut fields = Vec::new();
    for (code, kind, text) in [
        (PATH, b'o', "/org/freedesktop/systemd1"),
        (INTERFACE, b's', "org.freedesktop.DBus.Properties"),
        (MEMBER, b's', "Get"),
    ] {
        align(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        put_text(&mut fields, text);
    }
    align(&mut fields, 8);
    // A signature of `ss`: its length is one byte.
    fields.extend([SIGNATURE, 1, b'g', 0, 2, b's', b's', 0]);
    let order = if cfg!(target_endian = "little") { b'l' } else { b'B' };
    let mut message = vec![order, METHOD_CALL, 0, 1];
    for number in [body.len() as u32, 1, fields.len() as u32] {
        message.extend(number.to_ne_bytes());
    }
    message.extend(fields);
    align(&mut message, 8);
    message.extend(body);
    message
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    align(bytes, 4);
    bytes.extend((text.len() as u32).to_ne_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// Kind and body of the next message. It comes from a process of this system: in the byte order of both.
fn receive(reader: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 16];
    reader.read_exact(&mut head)?;
    let number =
        |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (body_bytes, field_bytes) = (number(4), number(12));
    if body_bytes > MESSAGE_BYTES_MAX || field_bytes > MESSAGE_BYTES_MAX {
        return Err(malformed());
    }
    let mut fields = vec![0; field_bytes.next_multiple_of(8)];
    reader.read_exact(&mut fields)?;
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body)?;
    Ok((head[1], body))
}

/// The text of a body that is one variant with a string in it.
fn text_of(body: &[u8]) -> Option<&[u8]> {
    let rest = body.strip_prefix(&[1, b's', 0, 0])?;
    let (length, text) = rest.split_first_chunk()?;
    text.get(..u32::from_ne_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::{call, receive, text_of};

    #[test]
    fn what_is_sent_has_the_lengths_that_it_says() {
        let message = call();
        let (kind, body) = receive(&mut message.as_slice()).expect("a whole message");
        assert_eq!((kind, body.len()), (super::METHOD_CALL, 4 + 33 + 3 + 4 + 12));
    }

    #[test]
    fn hostile_answers_are_refused() {
        let text = |length: u32| [&[1, b's', 0, 0][..], &length.to_ne_bytes(), b"stopping\0"].concat();
        assert_eq!(text_of(&text(8)), Some(&b"stopping"[..]));
        assert_eq!(text_of(&text(u32::MAX)), None);
        assert_eq!(text_of(&[1, b'u', 0, 0, 1, 0, 0, 0]), None);
        assert!(receive(&mut [0xff; 64].as_slice()).is_err());
        assert!(receive(&mut [0; 3].as_slice()).is_err());
    }
}
