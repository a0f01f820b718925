//! A frame over the control socket, and the command in it.

use control::frame;
use drbd_engine::admin::{Command, Response};

/// Receives one frame and decodes it as either side would.
pub fn run(mut input: &[u8]) {
    if let Ok(bytes) = frame::receive(&mut input, "a command", None) {
        if let Ok(command) = frame::decode::<Command>("a command", &bytes) {
            let mut written = Vec::new();
            frame::send(&mut written, "a command", None, &command).expect("what was received fits a frame");
        }
        let _ = frame::decode::<Response>("an answer", &bytes);
    }
}
