//! Serves memory or a file as a block device, to measure and profile the fronts:
//! `serve loop DIRECTORY NODE MIB [FILE]` or `serve nbd SOCKET MIB [FILE]`, until SIGTERM or SIGINT.

#[path = "../tests/clients/store.rs"]
mod store;
mod until;

use std::io;
use std::path::Path;

use front::nbd::{Export, NbdServer, listen};
use front::{Access, FuseFile, LoopDevice};
use store::Store;

fn open(mib: usize, file: Option<&String>) -> io::Result<Box<dyn Store + Send>> {
    match file {
        None =>
        // Touched once here, not in the middle of a measurement.
        {
            Ok(Box::new(vec![0x5a_u8; mib << 20]))
        }
        Some(path) => {
            let file =
                std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            file.set_len((mib as u64) << 20)?;
            Ok(Box::new(file))
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let stop = until::stop_on_signals()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["loop", directory, node, mib, ..] => {
            let mib: usize = mib.parse()?;
            let mut store = open(mib, words.get(4))?;
            let mut file =
                FuseFile::mount(Path::new(directory), "disk", (mib as u64) << 20, Access::ReadWrite)?;
            let path = file.path();
            let (served, serving_ends) = rustix::pipe::pipe()?;
            std::thread::scope(|scope| -> Result<(), Box<dyn std::error::Error>> {
                let server = scope.spawn(|| store::serve(&mut file, &mut *store, Some(&served)));
                let device = LoopDevice::bind(&path, Path::new(node), 512, Access::ReadWrite)?;
                println!("{} is loop{}", device.node().display(), device.number());
                until::wait_readable(&stop)?;
                let released = device.release();
                drop(serving_ends);
                server.join().map_err(|_| "the server panicked")??;
                Ok(released?)
            })?;
            file.unmount()?;
            Ok(())
        }
        ["nbd", socket, mib, ..] => {
            let mib: usize = mib.parse()?;
            let mut store = open(mib, words.get(3))?;
            let export =
                Export { name: "disk".into(), size_bytes: (mib as u64) << 20, access: Access::ReadWrite };
            let mut server = NbdServer::new(listen(Path::new(socket))?, export)?;
            Ok(store::serve(&mut server, &mut *store, Some(&stop))?)
        }
        _ => Err("usage: serve loop DIRECTORY NODE MIB [FILE] | serve nbd SOCKET MIB [FILE]".into()),
    }
}
