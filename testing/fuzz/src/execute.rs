//! One input into one target, with an eye on panics and on the clock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::corpus;
use crate::targets::Target;

/// A decoder that takes longer over so few bytes does not end, or is a way to hold us up.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

/// What became of an input.
pub enum Verdict {
    /// Read or refused.
    Fine,
    /// With its message.
    Panicked(String),
}

/// The input that is being read, and since when.
struct Current {
    input: Vec<u8>,
    since: Option<Instant>,
}

/// Runs a target.
pub struct Executor {
    target: &'static Target,
    current: Arc<Mutex<Current>>,
}

impl Executor {
    /// Silences panics, whose messages are the verdict's, and watches over the time.
    pub fn new(target: &'static Target) -> Self {
        std::panic::set_hook(Box::new(|_| {}));
        let current = Arc::new(Mutex::new(Current { input: Vec::new(), since: None }));
        let watched = Arc::clone(&current);
        // Ends with the process.
        std::thread::spawn(move || watch(target.name, &watched));
        Self { target, current }
    }

    /// Runs one input.
    pub fn run(&self, input: &[u8]) -> Verdict {
        self.set(input, Some(Instant::now()));
        let result = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        self.set(&[], None);
        match result {
            Ok(()) => Verdict::Fine,
            Err(payload) => Verdict::Panicked(
                payload
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_else(|| "without a message".to_owned()),
            ),
        }
    }

    fn set(&self, input: &[u8], since: Option<Instant>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.input.clear();
        current.input.extend_from_slice(input);
        current.since = since;
    }
}

/// Ends the process when an input takes too long: a thread that loops cannot be stopped otherwise.
fn watch(target: &str, watched: &Mutex<Current>) {
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let current = watched.lock().unwrap_or_else(PoisonError::into_inner);
        if current.since.is_some_and(|since| since.elapsed() > INPUT_TIME_MAX) {
            match corpus::keep(target, &current.input) {
                Ok(path) => println!("fuzz {target}: does not end on {}", path.display()),
                Err(error) => println!("fuzz {target}: does not end, and the input was not kept: {error:#}"),
            }
            std::process::exit(1);
        }
    }
}
