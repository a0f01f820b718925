//! The FUSE session: the kernel's ABI, and nothing more.
