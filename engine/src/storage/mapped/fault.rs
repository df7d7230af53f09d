//! A page that cannot be brought in is an error and not the end of the process.
//!
//! The kernel answers an access to a mapped page that it cannot fill – the file was cut short by
//! someone else, or the medium cannot read it back – by a signal, SIGBUS, whose default is death.
//! Here it is caught, in the way of Wayland's shared buffers: the handler maps zeros over the whole
//! window, so that the copy goes on, and marks the window as lost; the copying thread looks at the
//! mark afterwards, and the read is an error.
//!
//! # Rules
//! - **Only our own.** A thread that copies says so, in a thread-local that the handler reads: a
//!   SIGBUS from anywhere else goes to the handler that was there before, or has its default effect.
//! - **Once a process, and late**: installed with the first window, never taken out again. A
//!   program that installs a handler of its own later must pass on what is not its own, as this one
//!   does. Where no handler is wanted, `Directory::without_mappings` reads by calls.
//! - **The mark comes before the zeros**, so that no thread can see zeros and miss the mark.
//! - The handler does nothing but look at atomics and call the kernel.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::Once;
use std::{io, mem, ptr};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::sync::{Ordering, SignalFlag, SignalPointer, compiler_fence, fence};

/// The addresses of a mapping, for the handler.
#[derive(Debug)]
pub(super) struct Guard {
    start: *mut u8,
    length: usize,
    lost: SignalFlag,
}

// SAFETY: `start` is never dereferenced, only compared and handed to the kernel; what it names is
// guarded by the contract of `copy`.
unsafe impl Send for Guard {}
// SAFETY: As above; `lost` is an atomic.
unsafe impl Sync for Guard {}

thread_local! {
    /// The guard of the mapping that this thread is copying from.
    static COPYING: SignalPointer<Guard> = const { SignalPointer::new(ptr::null_mut()) };
}

impl Guard {
    /// For the `length` bytes mapped at `start`. Installs the handler, the first time.
    pub(super) fn new(start: *mut u8, length: usize) -> io::Result<Guard> {
        install()?;
        Ok(Guard { start, length, lost: SignalFlag::new(false) })
    }

    /// Copies from byte `at` of the mapping into `buf`; `false`: the mapping is lost, and `buf`
    /// holds nothing that counts.
    ///
    /// # Safety
    /// The mapping is one whole read-only mapping of ours, which stays mapped while this runs, and
    /// into which there are no references; `at + buf.len()` is at most its length.
    pub(super) unsafe fn copy(&self, at: usize, buf: &mut [u8]) -> bool {
        COPYING.with(|copying| {
            copying.store(ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
            // The handler runs on this thread: what it reads only has to be stored in this order.
            compiler_fence(Ordering::SeqCst);
            // SAFETY: Source: inside the mapping, as the caller promises, which is readable; where
            // the file behind it is not, the handler puts zeros there. Destination: an exclusive
            // borrow of as many bytes, and no mapping of ours, so they do not overlap. Bytes have
            // no alignment and every value is valid. The source may be changed meanwhile, but only
            // by the kernel, on behalf of `pwrite` or of the handler, never by an access of this
            // program to this memory, so there is no data race in Rust's sense; the copy is then a
            // mixture, which is allowed.
            unsafe { ptr::copy_nonoverlapping(self.start.add(at), buf.as_mut_ptr(), buf.len()) };
            compiler_fence(Ordering::SeqCst);
            copying.store(ptr::null_mut(), Ordering::Relaxed);
        });
        // Another thread's handler marks, then changes the mapping by a call; the kernel orders
        // that before what a copy reads from it. So the copy must stay before this look.
        fence(Ordering::Acquire);
        !self.lost.load(Ordering::Acquire)
    }
}

/// The handler of the signal before; written once, before this one is installed.
struct Previous(UnsafeCell<mem::MaybeUninit<libc::sigaction>>);

// SAFETY: Written only inside `Once`, before the handler can run, and only read after that.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new(mem::MaybeUninit::uninit()));

/// Installs the handler, once. A failure is not tried again: nothing would be different.
fn install() -> io::Result<()> {
    static ONCE: Once = Once::new();
    static INSTALLED: SignalFlag = SignalFlag::new(false);
    ONCE.call_once(|| {
        // SAFETY: A sigaction of zeros is a valid value; the pointers are to a live local and to
        // `PREVIOUS`, which no thread reads yet. The kernel writes a whole sigaction to the latter in
        // the first call, which changes nothing else, and so before the handler can run. `handle`
        // has the signature that SA_SIGINFO asks for, and keeps to what a handler may do.
        let done = unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = handle;
            action.sa_sigaction = handler as usize;
            // On the thread's alternate stack where it has one, as the standard library's is.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, ptr::null(), (*PREVIOUS.0.get()).as_mut_ptr()) == 0
                && libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) == 0
        };
        INSTALLED.store(done, Ordering::Release);
    });
    match INSTALLED.load(Ordering::Acquire) {
        true => Ok(()),
        false => Err(io::Error::other("the handler of SIGBUS could not be installed")),
    }
}

extern "C" fn handle(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: With SA_SIGINFO the kernel passes a valid siginfo. `si_addr` reads a field of it that
    // only a fault's has, and the value is used only if it is one (a positive code).
    let (is_fault, address) = unsafe { ((*info).si_code > 0, (*info).si_addr()) };
    // Constant, without a destructor: looking at it neither allocates nor registers anything.
    let guard = COPYING.with(|copying| copying.load(Ordering::Relaxed));
    // SAFETY: It is null except while this very thread is in `Guard::copy`, which borrows the guard.
    let guard = unsafe { guard.as_ref() };
    if let Some(guard) = guard
        && is_fault
        && (address as usize).wrapping_sub(guard.start as usize) < guard.length
    {
        guard.lost.store(true, Ordering::Release);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: Exactly the pages of the guard's mapping, which is ours and mapped while `copy`
        // runs, are exchanged for readable zeros. Nothing refers into them, other copies read
        // either content and find the mark, and the owner unmaps the same range in the end.
        let mapped =
            unsafe { mmap_anonymous(guard.start.cast(), guard.length, ProtFlags::READ, flags) };
        if mapped.is_ok() {
            return; // to the access that faulted, which now finds zeros
        }
    }
    // SAFETY: `PREVIOUS` was written before this handler was installed and is not written again.
    let previous = unsafe { (*PREVIOUS.0.get()).assume_init_ref() };
    match previous.sa_sigaction {
        // For a fault, ignoring is not possible: the kernel would take the default as well.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: Setting the default is allowed in a handler. A fault then repeats itself;
            // a signal that was sent must be sent again, and arrives when this returns.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                if !is_fault {
                    libc::raise(signal);
                }
            }
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: Somebody installed this address as a handler of these three parameters.
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) =
                unsafe { mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: Somebody installed this address as a handler of one parameter.
            let handler: extern "C" fn(i32) = unsafe { mem::transmute(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::{MmapOptions, MmapRaw};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    /// Runs the ignored test `name` of this module alone, in a process of its own.
    fn alone(name: &str) -> ExitStatus {
        let test = format!("internal::storage::mapped::fault::tests::{name}");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &test, "--ignored", "--nocapture"]).output().unwrap().status
    }

    /// A mapping of a page that its file does not have.
    fn beyond() -> MmapRaw {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = MmapOptions::new().map_raw_read_only(&file).unwrap();
        file.set_len(0).unwrap();
        map
    }

    fn fault() {
        let map = beyond();
        // SAFETY: One byte of a mapping that is alive; that it cannot be brought in is the point.
        unsafe { map.as_ptr().read_volatile() };
    }

    #[test]
    #[ignore = "dies: run by the test below"]
    fn child_of_the_default() {
        install().unwrap();
        fault();
    }

    #[test]
    #[ignore = "dies: run by the test below"]
    fn child_that_is_sent_the_signal() {
        // SAFETY: The default is always a valid choice. (Rust's own handler takes a fault for
        // granted, and would return from a signal that was only sent.)
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        install().unwrap();
        // SAFETY: Sends a signal to the calling thread.
        unsafe { libc::raise(libc::SIGBUS) };
    }

    extern "C" fn leave(_: i32) {
        // SAFETY: Ends the process at once, which a handler may do.
        unsafe { libc::_exit(42) }
    }

    #[test]
    #[ignore = "leaves: run by the test below"]
    fn child_of_another_handler() {
        // SAFETY: A handler of one parameter, which is what `signal` asks for.
        unsafe { libc::signal(libc::SIGBUS, leave as extern "C" fn(i32) as usize) };
        let map = beyond();
        let guard = Guard::new(map.as_mut_ptr(), map.len()).unwrap();
        // SAFETY: The guard's own mapping, alive, and a byte inside it.
        assert!(!unsafe { guard.copy(5, &mut [9]) }, "ours is ours");
        fault();
    }

    #[test]
    fn what_is_not_ours_is_passed_on() {
        assert_eq!(alone("child_of_the_default").signal(), Some(libc::SIGBUS));
        assert_eq!(alone("child_that_is_sent_the_signal").signal(), Some(libc::SIGBUS));
        assert_eq!(alone("child_of_another_handler").code(), Some(42));
    }
}
