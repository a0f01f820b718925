//! Page-aligned memory that a request's bytes live in from the front to the disk and the peer.
//!
//! Buffers are recycled by the thread that drops them: first-touch page faults cost three times the copy.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of a buffer's first byte, enough for direct IO on every disk.
pub const ALIGNMENT_BYTES: usize = 4096;

/// Bytes before the payload that belong to the buffer too: a protocol header read together with the payload
/// ends where the payload begins, so that the payload is aligned without a copy.
pub const HEADROOM_BYTES: usize = 4096;

/// Sizes of the recycled classes; larger buffers come from the allocator each time.
const CLASS_BYTES: [usize; 4] = [4 << 10, 32 << 10, 256 << 10, 1 << 20];

/// At most so many buffers of one class wait for reuse in one thread.
const CLASS_KEPT_MAX: [usize; 4] = [1024, 256, 64, 96];

thread_local! {
    static FREE: RefCell<[Vec<NonNull<u8>>; 4]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new(), Vec::new()]) };
}

/// An owned, page-aligned run of bytes with headroom before it. Its content is what an earlier use left.
pub struct Buffer {
    base: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: a Buffer owns its memory exclusively; the free list it returns to is the dropping thread's own.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

fn class_of(len: usize) -> Option<usize> {
    CLASS_BYTES.iter().position(|&c| len <= c)
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(HEADROOM_BYTES + capacity, ALIGNMENT_BYTES)
        .expect("buffer size is bounded by the caller")
}

impl Buffer {
    /// A buffer of `len` bytes whose content is unspecified but initialised.
    pub fn new(len: usize) -> Self {
        let class = class_of(len);
        if let Some(base) = class.and_then(|c| FREE.with_borrow_mut(|free| free[c].pop())) {
            return Self { base, capacity: CLASS_BYTES[class.unwrap_or_default()], len };
        }
        let capacity = class.map_or(len.next_multiple_of(ALIGNMENT_BYTES), |c| CLASS_BYTES[c]);
        let layout = layout(capacity);
        // SAFETY: the layout's size is not zero (it includes the headroom).
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { base, capacity, len }
    }

    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(0);
        buffer
    }

    /// A buffer with a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// Bytes that `set_len` may reach.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes the length; bytes that become visible have unspecified (initialised) content.
    ///
    /// # Panics
    /// If `len` is beyond the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} beyond the buffer's capacity {}", self.capacity);
        self.len = len;
    }

    /// The last `headroom` bytes before the payload together with the whole capacity, for a read that brings a
    /// header of known size and its payload at once.
    ///
    /// # Panics
    /// If `headroom` exceeds `HEADROOM_BYTES`.
    pub fn with_headroom(&mut self, headroom: usize) -> &mut [u8] {
        assert!(headroom <= HEADROOM_BYTES);
        // SAFETY: the range lies inside the allocation, which is initialised and exclusively ours.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.base.as_ptr().add(HEADROOM_BYTES - headroom),
                headroom + self.capacity,
            )
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: payload starts after the headroom; len <= capacity; the memory is initialised.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(HEADROOM_BYTES), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(HEADROOM_BYTES), self.len) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let kept = class_of(self.capacity).filter(|&c| CLASS_BYTES[c] == self.capacity).is_some_and(|c| {
            FREE.try_with(|free| {
                let list = &mut free.borrow_mut()[c];
                let keep = list.len() < CLASS_KEPT_MAX[c];
                if keep {
                    list.push(self.base);
                }
                keep
            })
            .unwrap_or(false)
        });
        if !kept {
            // SAFETY: allocated in `new` with this very layout; nobody else refers to it.
            unsafe { dealloc(self.base.as_ptr(), layout(self.capacity)) }
        }
    }
}
