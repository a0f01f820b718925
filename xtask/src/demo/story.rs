//! The story, chapter by chapter: every line shown is the line that runs.

mod loss;
mod mirror;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};

use crate::demo::lab::Lab;
use crate::demo::moments::{Moments, mib_per_s};
use crate::demo::proc_drbd::Device;
use crate::demo::screen::Screen;
use crate::demo::tutorial::{LOG, SERVERS};

/// How long any state may take to come about; the full sync is the longest.
const STATE_TIME_MAX: Duration = Duration::from_secs(90);

/// How often the state is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Without a terminal, the bar is a line each so many tenths of a percent.
const BAR_STEP_PERMILLE: u32 = 200;

/// The telling of it; an error is the first thing that did not come out as it must.
pub struct Story<'a> {
    lab: &'a Lab,
    screen: &'a Screen,
    moments: &'a mut Moments,
    keep: bool,
    /// What the file system has of the partition; the meta-data has the rest.
    usable_bytes: u64,
}

impl<'a> Story<'a> {
    /// At its beginning. With `keep` the mirror is up and mounted at the end.
    pub fn new(lab: &'a Lab, screen: &'a Screen, moments: &'a mut Moments, keep: bool) -> Self {
        Self { lab, screen, moments, keep, usable_bytes: 0 }
    }

    /// Tells all of it.
    pub fn tell(mut self) -> anyhow::Result<()> {
        self.servers_and_volumes()?;
        self.partitions()?;
        self.resource()?;
        self.first_sync()?;
        self.files()?;
        self.swap_roles()?;
        let acknowledged = self.power_cut()?;
        self.take_over(&acknowledged)?;
        self.come_back()?;
        self.compare_disks()?;
        if self.keep {
            self.stand_up_again()?;
        }
        Ok(())
    }

    /// A line typed on the host, shown and run; what it printed is not shown.
    fn host(&self, line: &str) -> anyhow::Result<String> {
        self.screen.typed(">", line);
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "lockstep").collect();
        let (succeeded, output) = self.lab.run(self.lab.lockstep(&words))?;
        if !succeeded {
            self.screen.output(&output);
            bail!("`{line}` on the host did not succeed");
        }
        Ok(output)
    }

    /// A line typed in a server, shown and run, and what it printed shown.
    fn typed(&self, server: &str, line: &str) -> anyhow::Result<String> {
        self.screen.typed(&format!("{server}#"), line);
        let output = self.quiet(server, line)?;
        self.screen.output(&output);
        Ok(output)
    }

    /// A line run in a server; nothing is shown unless it fails.
    fn quiet(&self, server: &str, line: &str) -> anyhow::Result<String> {
        let (succeeded, output) = self.lab.run(self.lab.ssh(server, line))?;
        if !succeeded {
            self.screen.output(&output);
            bail!("`{line}` in {server} did not succeed");
        }
        Ok(output)
    }

    /// Waits until the server's minor is as wanted, with a bar if it resyncs meanwhile.
    fn await_device(
        &self,
        server: &str,
        wanted: &str,
        is_wanted: impl Fn(&Device) -> bool,
    ) -> anyhow::Result<Device> {
        let begun = Instant::now();
        let mut shown_permille = 0;
        loop {
            let text = self.quiet(server, "lockstep proc drbd")?;
            let device = Device::parse(&text)
                .with_context(|| format!("`lockstep proc drbd` in {server} shows no device:\n{text}"))?;
            if is_wanted(&device) {
                return Ok(device);
            }
            if begun.elapsed() > STATE_TIME_MAX {
                self.screen.output(&text);
                bail!("{server} never became {wanted}");
            }
            self.draw_bar(&device, &mut shown_permille);
            thread::sleep(POLL);
        }
    }

    fn draw_bar(&self, device: &Device, shown_permille: &mut u32) {
        let Some(resync) = &device.resync else { return };
        let line = format!(
            "   {} {:5.1}%  finish {}  {:.1} MiB/s",
            resync.bar,
            f64::from(resync.permille) / 10.0,
            resync.finish,
            resync.kib_per_s as f64 / 1024.0
        );
        if self.screen.is_terminal() {
            self.screen.bar(&line);
        } else if resync.permille >= *shown_permille + BAR_STEP_PERMILLE {
            *shown_permille = resync.permille - resync.permille % BAR_STEP_PERMILLE;
            self.screen.output(&line);
        }
    }

    /// The disks' usable areas, read past every cache with both daemons off them.
    fn compare_disks(&mut self) -> anyhow::Result<()> {
        self.screen.chapter("Both disks, byte for byte");
        self.typed("drbd0", "umount /drbd && drbdadm secondary r0")?;
        for server in SERVERS {
            self.typed(server.name, "drbdadm down r0")?;
        }
        let lines = SERVERS.map(|server| {
            let (bytes, disk) = (self.usable_bytes, server.partition);
            format!(
                "dd if={disk} bs=1M count={bytes} iflag=direct,count_bytes status=none | sha256sum | cut -c 1-64"
            )
        });
        let begun = Instant::now();
        let lab = self.lab;
        let sums = thread::scope(|scope| {
            let read = |index: usize| lab.run(lab.ssh(SERVERS[index].name, &lines[index]));
            let second = scope.spawn(move || read(1));
            Ok::<_, anyhow::Error>([
                read(0)?,
                second.join().map_err(|_| anyhow!("reading a disk broke off"))??,
            ])
        })?;
        for ((server, line), (_, sum)) in SERVERS.iter().zip(&lines).zip(&sums) {
            self.screen.typed(&format!("{}#", server.name), line);
            self.screen.output(sum);
        }
        for (line, (succeeded, sum)) in lines.iter().zip(&sums) {
            ensure!(*succeeded && sum.trim_end().len() == 64, "`{line}` gave no checksum");
        }
        ensure!(sums[0].1 == sums[1].1, "the disks of drbd0 and drbd1 differ");
        self.screen.holds(&format!("both disks are equal in all {} bytes", self.usable_bytes));
        self.moments.note("both disks equal", mib_per_s(2 * self.usable_bytes, begun.elapsed()));
        Ok(())
    }

    /// For whoever looks around.
    fn stand_up_again(&self) -> anyhow::Result<()> {
        self.screen.chapter("Up again, for you to look around");
        for server in SERVERS {
            self.typed(server.name, "drbdadm up r0")?;
        }
        self.await_device("drbd0", "connected and in sync", is_in_sync)?;
        self.typed("drbd0", "drbdadm primary r0 && mount /dev/drbd0 /drbd")?;
        self.typed("drbd0", &format!("drbdadm status; {LOG} | tail -n 3"))?;
        Ok(())
    }
}

fn is_in_sync(device: &Device) -> bool {
    device.connection == "Connected" && device.disks == "UpToDate/UpToDate"
}
