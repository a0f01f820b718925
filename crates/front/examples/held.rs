//! A file served as a block device by a worker under a holder: `held hold DIRECTORY NODE FILE MIB` until SIGTERM. The
//! worker may be killed at any moment; its process id is in NODE.pid.

#[path = "../tests/clients/store.rs"]
mod store;
mod until;

use std::error::Error;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::Path;

use front::holder::{Ended, Holder, Kept, supervise};
use front::{Access, FuseFile, LoopDevice};

const FILE: &str = "file";
const LOOP: &str = "loop";

fn hold(words: &[OsString]) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = [OsString::from("work")].into_iter().chain(words.iter().cloned()).collect();
    match supervise(&std::env::current_exe()?, &arguments)? {
        Ended::Exited(0) => Ok(()),
        ended => Err(format!("the worker ended: {ended:?}").into()),
    }
}

fn take(kept: &mut Vec<Kept>, name: &str) -> Option<Kept> {
    let at = kept.iter().position(|kept| kept.name == name)?;
    Some(kept.swap_remove(at))
}

fn work(words: &[String]) -> Result<(), Box<dyn Error>> {
    let [directory, node, backing, mib] = words else { return Err("work DIRECTORY NODE FILE MIB".into()) };
    let size_bytes = mib.parse::<u64>()? << 20;
    let stop = until::stop_on_signals()?;
    rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE)?;
    let mut holder = Holder::from_env()?.ok_or("no holder")?;
    let mut kept = holder.restore()?;
    let backing = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(backing)?;
    backing.set_len(size_bytes)?;
    let mut store = backing;

    let mut file = match take(&mut kept, FILE) {
        Some(mut kept) => FuseFile::resume(kept.fds.remove(0), &kept.data)?,
        None => {
            let file = FuseFile::mount(Path::new(directory), "disk", size_bytes, Access::ReadWrite)?;
            holder.store(FILE, &file.kept(), &[file.descriptor()])?;
            file
        }
    };
    let path = file.path();
    let (served, serving_ends) = rustix::pipe::pipe()?;
    std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let server = scope.spawn(|| store::serve(&mut file, &mut store, Some(&served)));
        let device = match take(&mut kept, LOOP) {
            Some(mut kept) => LoopDevice::resume(kept.fds.remove(0), &kept.data)?,
            None => {
                let device = LoopDevice::bind(&path, Path::new(node), 512, Access::ReadWrite)?;
                holder.store(LOOP, &device.kept(), &[device.descriptor()])?;
                device
            }
        };
        std::fs::write(format!("{node}.pid"), std::process::id().to_string())?;
        until::wait_readable(&stop)?;
        let released = device.release();
        holder.forget(LOOP)?;
        drop(serving_ends);
        server.join().map_err(|_| "the server panicked")??;
        Ok(released?)
    })?;
    file.unmount()?;
    holder.forget(FILE)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match words.split_first() {
        Some((word, rest)) if word == "hold" => hold(rest),
        Some((word, rest)) if word == "work" => {
            work(&rest.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>())
        }
        _ => Err("usage: held hold DIRECTORY NODE FILE MIB".into()),
    }
}
