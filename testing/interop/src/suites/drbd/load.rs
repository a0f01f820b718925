//! A writer at work on a node, and what it was promised.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use mirror::ledger::Ledger;

use crate::side::Side;

/// The writer, built beside this program.
const PROGRAM: &str = "mirror-load";

/// It writes to the first 16 MiB only: what the activity log makes of a crash must stay less than a full sync.
const BLOCKS: u32 = 4096;

/// What was acknowledged over several runs of the writer, on whichever nodes.
#[derive(Default)]
pub struct Writes {
    ledger: Ledger,
    runs: u64,
    log: PathBuf,
}

impl Writes {
    /// Starts the writer on a node that is Primary.
    pub fn start(&mut self, side: &mut dyn Side) -> anyhow::Result<()> {
        let program = std::env::current_exe()?.with_file_name(PROGRAM);
        fs::copy(&program, side.shelf().join(PROGRAM))
            .with_context(|| format!("cannot copy {}", program.display()))?;
        self.runs += 1;
        self.log = side.shelf().join("load.log");
        let (shelf, seed, first) = (side.shelf_inside(), self.runs, self.runs << 32);
        side.run(&format!(
            "cd {shelf}; rm -f load.*\n\
             setsid sh -c '{{ sleep 600 & echo $! >load.stop; wait; }} | ./{PROGRAM} stamps /dev/drbd0 {seed} {first} {BLOCKS} \
             >load.log 2>load.err; echo $? >load.status' </dev/null >/dev/null 2>&1 &\n\
             for i in $(seq 200); do [ -s load.log ] && exit 0; sleep 0.05; done; cat load.err; exit 1"
        ))?;
        Ok(())
    }

    /// Ends the writer, which must have met no error.
    pub fn stop(&mut self, side: &mut dyn Side) -> anyhow::Result<()> {
        let shelf = side.shelf_inside();
        side.run(&format!(
            "cd {shelf}; kill $(cat load.stop)\n\
             for i in $(seq 600); do [ -s load.status ] && break; sleep 0.05; done\n\
             [ \"$(cat load.status)\" = 0 ] || {{ cat load.err; exit 1; }}"
        ))?;
        self.take()
    }

    /// The writer's node is gone; takes what it had been promised.
    pub fn cut(&mut self) -> anyhow::Result<()> {
        self.take()
    }

    fn take(&mut self) -> anyhow::Result<()> {
        let told = fs::read_to_string(&self.log).context("the writer's log")?;
        let before = self.ledger.counts.0;
        // A line without its end was never a promise.
        for line in told.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            self.ledger.take(line);
        }
        ensure!(self.ledger.counts.0 > before, "the writer wrote nothing");
        Ok(())
    }

    /// That a disk holds everything that was acknowledged.
    pub fn check(&self, disk: &[u8]) -> anyhow::Result<()> {
        let faults = self.ledger.faults(disk);
        ensure!(
            faults.is_empty(),
            "{} blocks of {} writes are lost, such as {}",
            faults.len(),
            self.ledger.counts.0,
            faults[0]
        );
        Ok(())
    }
}
