//! Reading what is in the page cache: through the mapped windows of a `Directory`, beside `pread`.
//!
//! Random aligned reads in a segment file that was written in small pieces; both ways in turns, on
//! one thread and on two.
//!
//!     cargo run --release -p afterimage-benches --bin reads [-- --dir DIR] [--quick]

use afterimage::internal::storage::{Directory, FileName, Fill, Storage};
use afterimage_benches::{Column, Random};
use std::fs::File;
use std::hint::black_box;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

const SEGMENT: FileName = FileName::Segment { volume: 0, index: 0 };

/// Nanoseconds a read: `threads` threads, `reads` each, of `size` bytes.
fn time(
    threads: u64,
    reads: u64,
    size: u64,
    bytes: u64,
    read: &(impl Fn(u64, &mut [u8]) + Sync),
) -> f64 {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut random = Random::new(thread + 1);
                let mut buf = vec![0; size as usize];
                for _ in 0..reads {
                    read(random.draw() % (bytes / size) * size, &mut buf);
                    black_box(&buf);
                }
            });
        }
    });
    started.elapsed().as_nanos() as f64 / reads as f64
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let quick = args.iter().any(|a| a == "--quick");
    let dir = args.iter().position(|a| a == "--dir").map(|i| PathBuf::from(&args[i + 1]));
    let dir = dir.unwrap_or_else(std::env::temp_dir).join(format!("reads-{}", std::process::id()));
    let (rounds, reads, bytes) = if quick { (1, 200, 1 << 20) } else { (9, 200_000, 256 << 20) };
    let directory = Directory::create(&dir).expect("a directory");
    directory.create(SEGMENT, bytes, Fill::Sparse).expect("a segment");
    for at in (0..bytes).step_by(4096) {
        directory.write(SEGMENT, at, &[IoSlice::new(&[7; 4096])]).expect("written");
    }
    let file = File::open(dir.join(SEGMENT.to_string())).expect("the segment");
    println!("nanoseconds a read, {rounds} rounds: median (min-max)");
    for (threads, size) in [(1, 4096), (2, 4096), (1, 65_536), (2, 65_536)] {
        let mut columns = [Column::new("mapped"), Column::new("pread")];
        let reads = reads * 4096 / size;
        for _ in 0..rounds {
            columns[0].figures.push(time(threads, reads, size, bytes, &|at, buf| {
                directory.read(SEGMENT, at, buf).expect("read");
            }));
            columns[1].figures.push(time(threads, reads, size, bytes, &|at, buf| {
                file.read_exact_at(buf, at).expect("read");
            }));
        }
        println!("{} KiB, {threads} threads", size / 1024);
        for column in &columns {
            let (low, high) = column.range();
            println!("  {:>7} {:7.0} ({low:.0}-{high:.0})", column.name, column.median());
        }
        println!("  pread / mapped: {:.2}", columns[1].ratio(&columns[0]));
    }
    drop(directory);
    std::fs::remove_dir_all(&dir).expect("removed");
}
