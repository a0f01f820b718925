//! The layouts of `linux/fuse.h`, ABI 7.31 to 7.45, in the host's byte order. Field names are upstream's.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `FUSE_KERNEL_VERSION`.
pub const MAJOR: u32 = 7;
/// Oldest minor that is spoken: every layout below has its present size from there on.
pub const MINOR_MIN: u32 = 31;
/// Newest minor that is spoken.
pub const MINOR_MAX: u32 = 45;
/// `FUSE_ROOT_ID`.
pub const ROOT_ID: u64 = 1;
/// `FUSE_MIN_READ_BUFFER`: no read of the device may offer less.
pub const MIN_READ_BUFFER_BYTES: usize = 8192;
/// `FUSE_UNIQUE_RESEND`: this bit of `unique` marks a request that was handed out before.
pub const UNIQUE_RESEND: u64 = 1 << 63;
/// `FUSE_DEV_IOC_CLONE`.
pub const DEV_IOC_CLONE: u32 = 0x8004_e500;

/// A bit set of INIT's `flags` (low half) and `flags2` (high half).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct InitFlags(pub u64);

impl InitFlags {
    /// `FUSE_ASYNC_READ`.
    pub const ASYNC_READ: Self = Self(1 << 0);
    /// `FUSE_ATOMIC_O_TRUNC`.
    pub const ATOMIC_O_TRUNC: Self = Self(1 << 3);
    /// `FUSE_BIG_WRITES`.
    pub const BIG_WRITES: Self = Self(1 << 5);
    /// `FUSE_DO_READDIRPLUS`.
    pub const DO_READDIRPLUS: Self = Self(1 << 13);
    /// `FUSE_READDIRPLUS_AUTO`.
    pub const READDIRPLUS_AUTO: Self = Self(1 << 14);
    /// `FUSE_ASYNC_DIO`.
    pub const ASYNC_DIO: Self = Self(1 << 15);
    /// `FUSE_WRITEBACK_CACHE`.
    pub const WRITEBACK_CACHE: Self = Self(1 << 16);
    /// `FUSE_NO_OPEN_SUPPORT`: the kernel takes ENOSYS on OPEN as "no open needed".
    pub const NO_OPEN_SUPPORT: Self = Self(1 << 17);
    /// `FUSE_PARALLEL_DIROPS`.
    pub const PARALLEL_DIROPS: Self = Self(1 << 18);
    /// `FUSE_POSIX_ACL`.
    pub const POSIX_ACL: Self = Self(1 << 20);
    /// `FUSE_MAX_PAGES`.
    pub const MAX_PAGES: Self = Self(1 << 22);
    /// `FUSE_NO_OPENDIR_SUPPORT`.
    pub const NO_OPENDIR_SUPPORT: Self = Self(1 << 24);
    /// `FUSE_EXPLICIT_INVAL_DATA`.
    pub const EXPLICIT_INVAL_DATA: Self = Self(1 << 25);
    /// `FUSE_HANDLE_KILLPRIV_V2`.
    pub const HANDLE_KILLPRIV_V2: Self = Self(1 << 28);
    /// `FUSE_INIT_EXT`: `flags2` is valid.
    pub const INIT_EXT: Self = Self(1 << 30);
    /// `FUSE_DIRECT_IO_ALLOW_MMAP`.
    pub const DIRECT_IO_ALLOW_MMAP: Self = Self(1 << 36);
    /// `FUSE_HAS_RESEND`: the kernel understands `FUSE_NOTIFY_RESEND` (7.40).
    pub const HAS_RESEND: Self = Self(1 << 39);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits set in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The bits set in either.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `FOPEN_DIRECT_IO`.
pub const FOPEN_DIRECT_IO: u32 = 1 << 0;
/// `FOPEN_KEEP_CACHE`.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `FOPEN_CACHE_DIR`.
pub const FOPEN_CACHE_DIR: u32 = 1 << 3;
/// `FOPEN_NOFLUSH`.
pub const FOPEN_NOFLUSH: u32 = 1 << 5;
/// `FOPEN_PARALLEL_DIRECT_WRITES`.
pub const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

/// `FATTR_SIZE` of `setattr_in.valid`; the other bits follow in the same order as upstream's.
pub const FATTR_SIZE: u32 = 1 << 3;

/// `enum fuse_opcode`: the values that become an `Operation`.
pub mod opcode {
    #![allow(missing_docs, reason = "upstream's names, upstream's meaning")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const GETXATTR: u32 = 22;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
}

/// `enum fuse_notify_code`: the values that are sent.
pub(crate) mod notify {
    pub const INVAL_INODE: i32 = 2;
    pub const INVAL_ENTRY: i32 = 3;
    pub const RESEND: i32 = 7;
}

macro_rules! layouts {
    ($($(#[$meta:meta])* $name:ident = $bytes:literal { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
        #[repr(C)]
        #[allow(missing_docs, reason = "upstream's field names, upstream's meaning")]
        pub struct $name { $(pub $field: $kind),* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    )*};
}

layouts! {
    /// `struct fuse_in_header`.
    InHeader = 40 { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16 }
    /// `struct fuse_out_header`.
    OutHeader = 16 { len: u32, error: i32, unique: u64 }
    /// `struct fuse_attr`; `blocks` in units of 512 bytes.
    Attr = 88 { ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32,
        mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32,
        flags: u32 }
    /// `struct fuse_entry_out`; a `nodeid` of 0 is a negative entry.
    EntryOut = 128 { nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr }
    /// `struct fuse_attr_out`.
    AttrOut = 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    /// `struct fuse_init_in` up to what every minor since 7.31 sends.
    InitInBase = 16 { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// `struct fuse_init_out`; `max_stack_depth` and `request_timeout` (s) as of 7.40 and 7.43.
    InitOut = 64 { major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16,
        flags2: u32, max_stack_depth: u32, request_timeout: u16, unused: [u16; 11] }
    /// `struct fuse_forget_in`.
    ForgetIn = 8 { nlookup: u64 }
    /// `struct fuse_forget_one`.
    ForgetOne = 16 { nodeid: u64, nlookup: u64 }
    /// `struct fuse_batch_forget_in`.
    BatchForgetIn = 8 { count: u32, dummy: u32 }
    /// `struct fuse_getattr_in`.
    GetattrIn = 16 { getattr_flags: u32, dummy: u32, fh: u64 }
    /// `struct fuse_setattr_in`.
    SetattrIn = 88 { valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64,
        ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32,
        unused5: u32 }
    /// `struct fuse_mkdir_in`.
    MkdirIn = 8 { mode: u32, umask: u32 }
    /// `struct fuse_rename_in`.
    RenameIn = 8 { newdir: u64 }
    /// `struct fuse_rename2_in`.
    Rename2In = 16 { newdir: u64, flags: u32, padding: u32 }
    /// `struct fuse_open_in`.
    OpenIn = 8 { flags: u32, open_flags: u32 }
    /// `struct fuse_create_in`.
    CreateIn = 16 { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// `struct fuse_open_out`.
    OpenOut = 16 { fh: u64, open_flags: u32, padding: u32 }
    /// `struct fuse_release_in`.
    ReleaseIn = 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// `struct fuse_flush_in`.
    FlushIn = 24 { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// `struct fuse_read_in`, of READ, READDIR and READDIRPLUS.
    ReadIn = 40 { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `struct fuse_write_in`; `flags` are those of open(2).
    WriteIn = 40 { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `struct fuse_write_out`.
    WriteOut = 8 { size: u32, padding: u32 }
    /// `struct fuse_kstatfs`.
    StatfsOut = 80 { blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32,
        frsize: u32, padding: u32, spare: [u32; 6] }
    /// `struct fuse_fsync_in`.
    FsyncIn = 16 { fh: u64, fsync_flags: u32, padding: u32 }
    /// `struct fuse_getxattr_in`.
    GetxattrIn = 8 { size: u32, padding: u32 }
    /// `struct fuse_access_in`.
    AccessIn = 8 { mask: u32, padding: u32 }
    /// `struct fuse_interrupt_in`.
    InterruptIn = 8 { unique: u64 }
    /// `struct fuse_fallocate_in`; `mode` as of fallocate(2).
    FallocateIn = 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// `struct fuse_lseek_in`.
    LseekIn = 24 { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// `struct fuse_lseek_out`.
    LseekOut = 8 { offset: u64 }
    /// `struct fuse_dirent` without its name.
    Dirent = 24 { ino: u64, off: u64, namelen: u32, kind: u32 }
    /// `struct fuse_notify_inval_inode_out`.
    NotifyInvalInodeOut = 24 { ino: u64, off: i64, len: i64 }
    /// `struct fuse_notify_inval_entry_out`.
    NotifyInvalEntryOut = 16 { parent: u64, namelen: u32, flags: u32 }
}
