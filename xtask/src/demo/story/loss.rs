//! The Primary is lost in mid-write and taken back: what was acknowledged is there, and only what differs is sent.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::demo::story::{POLL, Story, is_in_sync};
use crate::demo::tutorial::LOG;
use crate::demo::writer::{self, Writer};

/// Enough files and time that the cut comes in full flow.
const ACKNOWLEDGED_MIN: usize = 100;
const WRITING_TIME_MIN: Duration = Duration::from_secs(2);
const WRITING_TIME_MAX: Duration = Duration::from_secs(30);

/// What the writer acknowledged, and when the cut began.
pub(super) struct Acknowledged {
    lines: Vec<String>,
    cut: Instant,
}

impl Story<'_> {
    pub(super) fn power_cut(&mut self) -> anyhow::Result<Acknowledged> {
        self.screen.chapter("The Primary loses power in mid-write");
        self.screen.typed("drbd1#", writer::LINE);
        let mut writer = Writer::start(self.lab, "drbd1")?;
        let begun = Instant::now();
        let in_flow = |count, time| count >= ACKNOWLEDGED_MIN && time >= WRITING_TIME_MIN;
        while !in_flow(writer.count(), begun.elapsed()) {
            self.lab.refuse_interrupt()?;
            ensure!(!writer.is_over(), "the writer ended by itself after {} files", writer.count());
            if begun.elapsed() > WRITING_TIME_MAX {
                bail!("only {} files were acknowledged in {:?}", writer.count(), WRITING_TIME_MAX);
            }
            self.screen.bar(&format!("   {} files written, fsynced, acknowledged", writer.count()));
            thread::sleep(POLL);
        }
        self.moments.note("power of drbd1, the Primary, cut in mid-write", "");
        let cut = Instant::now();
        let wrote = cut - begun;
        self.host("lockstep lab fault power-cut drbd1")?;
        let lines = writer.acknowledged()?;
        if let Some(index) =
            (0..lines.len()).find(|&index| !writer::is_acknowledgement(&lines[index], index + 1))
        {
            bail!("the writer said: {}", lines[index].trim_end());
        }
        let speed = format!(
            "{} files acknowledged, {:.0} a second",
            lines.len(),
            lines.len() as f64 / wrote.as_secs_f64()
        );
        self.screen.output(&format!("{speed}; then nothing more from drbd1"));
        self.moments.measured(speed);
        Ok(Acknowledged { lines, cut })
    }

    pub(super) fn take_over(&mut self, acknowledged: &Acknowledged) -> anyhow::Result<()> {
        self.screen.chapter("drbd0 takes over");
        self.await_device("drbd0", "aware of its peer's loss", |device| {
            device.connection != "Connected" && device.roles.ends_with("/Unknown")
        })?;
        self.typed("drbd0", "drbdadm primary r0 && mount /dev/drbd0 /drbd")?;
        let time = acknowledged.cut.elapsed().as_secs_f64();
        self.typed("drbd0", "lockstep proc drbd")?;
        self.moments.note("drbd0 is Primary, mounted", format!("{time:.1} s after the cut"));

        let count = acknowledged.lines.len();
        self.screen.typed("drbd0#", "sha256sum --quiet -c acknowledged");
        let check = self.lab.ssh("drbd0", "sha256sum --quiet -c -");
        let (succeeded, printed) = self.lab.run_with(check, &acknowledged.lines.concat())?;
        self.screen.output(&printed);
        ensure!(succeeded, "not every one of {count} acknowledged files is in drbd0 with its checksum");
        self.screen
            .holds(&format!("all {count} of {count} acknowledged files are there, each with its checksum"));
        self.typed("drbd0", "cd /drbd && sha256sum --quiet -c SHA256SUMS")?;
        self.screen.holds("and so are the files from before");
        self.moments.note("acknowledged files checked", format!("{count} of {count} right"));
        self.typed("drbd0", "dd if=/dev/urandom of=/drbd/alone bs=1M count=8 conv=fsync")?;
        Ok(())
    }

    pub(super) fn come_back(&mut self) -> anyhow::Result<()> {
        self.screen.chapter("The lost server comes back");
        self.host("lockstep lab fault power-on drbd1")?;
        self.moments.note("drbd1 powered on again", "");
        let begun = Instant::now();
        self.typed("drbd1", "drbdadm up r0")?;
        self.await_device("drbd0", "in sync with drbd1 again", is_in_sync)?;
        let time = begun.elapsed().as_secs_f64();
        self.typed("drbd0", "lockstep proc drbd")?;
        let line = self.quiet("drbd1", &format!("{LOG} | grep -o 'will sync [0-9]* KB' | tail -n 1"))?;
        let kib: u64 = line
            .split_whitespace()
            .find_map(|word| word.parse().ok())
            .with_context(|| format!("drbd1's log says of no resync how much it sends: {line:?}"))?;
        let all_kib = self.usable_bytes >> 10;
        ensure!(kib < all_kib, "drbd1 was synced in full ({kib} KiB), not by what differs");
        self.screen.holds(&format!(
            "in sync {time:.1} s after `up`, {kib} KiB of {all_kib} KiB resynced: what was written \
             meanwhile, and what drbd1 may have been writing at the cut"
        ));
        self.moments
            .note("drbd1 in sync again", format!("{kib} KiB of {all_kib} KiB resynced in {time:.1} s"));
        Ok(())
    }
}
