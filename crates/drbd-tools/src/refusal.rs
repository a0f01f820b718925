//! DRBD's error numbers: number, text and exit status in one table.
//!
//! Upstream: `enum drbd_state_rv` and `enum drbd_ret_code` of linux/drbd.h; what drbdsetup 8.4 prints for them and
//! exits with.

use drbd_engine::admin::Refusal;

/// Exit status of drbdsetup for a configuration error (numbers above 100).
const EXIT_CONFIGURATION: u8 = 10;

/// Exit status of drbdsetup for a state change that was refused.
const EXIT_STATE: u8 = 11;

/// `SS_NO_UP_TO_DATE_DISK`.
const NO_UP_TO_DATE_DISK: i32 = -2;

/// `SS_NO_LOCAL_DISK`.
const NO_LOCAL_DISK: i32 = -4;

/// `SS_LOWER_THAN_OUTDATED`.
const LOWER_THAN_OUTDATED: i32 = -16;

/// `ERR_MINOR_INVALID`.
pub const MINOR_INVALID: i32 = 127;

/// `ERR_RES_NOT_KNOWN`.
pub const RESOURCE_NOT_KNOWN: i32 = 158;

/// `enum drbd_state_rv` and `drbd_state_sw_errors`.
const STATE_ERRORS: &[(i32, &str)] = &[
    (-1, "Multiple primaries not allowed by config"),
    (NO_UP_TO_DATE_DISK, "Need access to UpToDate data"),
    (NO_LOCAL_DISK, "Can not resync without local disk"),
    (-5, "Can not resync without remote disk"),
    (-6, "Refusing to be Outdated while Connected"),
    (-7, "Refusing to be Primary while peer is not outdated"),
    (-8, "Can not start OV/resync since it is already active"),
    (-9, "Can not disconnect a StandAlone device"),
    (-10, "State change was refused by peer node"),
    (-11, "Device is diskless, the requested operation requires a disk"),
    (-12, "Device is held open by someone"),
    (-13, "Have no net/connection configuration"),
    (-14, "Need a verify algorithm to start online verify"),
    (-15, "Need a connection to start verify or resync"),
    (LOWER_THAN_OUTDATED, "Disk state is lower than outdated"),
    (-17, "Peer does not support protocol"),
    (-18, "In transient state, retry after next state change"),
    (-19, "Concurrent state changes detected and aborted"),
    (-20, "Other vol primary on peer not allowed by config"),
    (-21, "Need a connection for a graceful disconnect/outdate peer"),
];

/// `enum drbd_ret_code` and its texts.
const CONFIGURATION_ERRORS: &[(i32, &str)] = &[
    (102, "Local address(port) already in use."),
    (103, "Remote address(port) already in use."),
    (104, "Can not open backing device."),
    (105, "Can not open meta device."),
    (106, "Lower device already in use."),
    (107, "Lower device is not a block device."),
    (108, "Meta device is not a block device."),
    (109, "Open of lower device failed."),
    (110, "Open of meta device failed."),
    (111, "Low.dev. smaller than requested DRBD-dev. size."),
    (112, "Meta device too small."),
    (113, "You have to use the disk command first."),
    (114, "Lower device is already claimed. This usually means it is mounted."),
    (115, "Meta device is already claimed. This usually means it is mounted."),
    (116, "Lower device / meta device / index combination invalid."),
    (
        117,
        "Currently we only support devices up to 3.998TB.\n\
         (up to 2TB in case you do not have CONFIG_LBD set)\nContact office@linbit.com, if you need more.",
    ),
    (118, "IO error(s) occurred during initial access to meta-data.\n"),
    (
        119,
        "No valid meta-data signature found.\n\n\t\
         ==> Use 'drbdadm create-md res' to initialize meta-data area. <==\n",
    ),
    (
        120,
        "The 'cram-hmac-alg' you specified is not known in the kernel. \
          (Maybe you need to modprobe it, or modprobe hmac?)",
    ),
    (121, "The 'cram-hmac-alg' you specified is not a digest."),
    (122, "kmalloc() failed. Out of memory?"),
    (123, "--discard-my-data not allowed when primary."),
    (124, "Device is attached to a disk (use detach first)"),
    (125, "Device has a net-config (use disconnect first)"),
    (126, "UnknownMandatoryTag"),
    (MINOR_INVALID, "Device minor not allocated"),
    (128, "Resulting device state would be invalid"),
    (129, "Interrupted by Signal"),
    (130, "Resize not allowed during resync."),
    (131, "Need one Primary node to resize."),
    (132, "The resync-after minor number is invalid"),
    (133, "This would cause a resync-after dependency cycle"),
    (134, "Sync-pause flag is already set"),
    (135, "Sync-pause flag is already cleared"),
    (136, "Disk state is lower than outdated"),
    (137, "Kernel does not know how to handle your request.\nMaybe API_VERSION mismatch?"),
    (138, "Device does not have a disk-config"),
    (139, "Protocol C required"),
    (140, "vmalloc() failed. Out of memory?"),
    (
        141,
        "The 'data-integrity-alg' you specified is not known in the kernel. \
          (Maybe you need to modprobe it, or modprobe hmac?)",
    ),
    (142, "The 'data-integrity-alg' you specified is not a digest."),
    (143, "Invalid cpu-mask."),
    (144, "CSUMSAlgNotAvail"),
    (145, "CSUMSAlgNotDigest"),
    (146, "VERIFYAlgNotAvail"),
    (147, "VERIFYAlgNotDigest"),
    (148, "Can not change csums-alg while resync is in progress"),
    (149, "Can not change verify-alg while online verify runs"),
    (150, "Can only attach to the data we lost last (see kernel log)."),
    (151, "Need to be StandAlone"),
    (152, "Permission denied. CAP_SYS_ADMIN necessary"),
    (153, "Protocol version 93 required to use --assume-clean"),
    (154, "Fencing policy resource-and-stonith only with prot B or C allowed"),
    (155, "on-congestion policy pull-ahead only with prot A allowed"),
    (
        156,
        "Sync-pause flag is already cleared.\nNote: Resync pause caused by a local resync-after dependency.",
    ),
    (157, "Sync-pause flag is already cleared.\nNote: Resync pause caused by the peer node."),
    (RESOURCE_NOT_KNOWN, "Unknown resource"),
    (159, "Resource still in use (delete all minors first)"),
    (160, "Minor still configured (down it first)"),
    (161, "Minor or volume exists already (delete it first)"),
    (162, "Invalid configuration request"),
    (163, "Prot version 100 required in order to change\nthese network options while connected"),
    (164, "Can not clear allow_two_primaries as long as\nthere a primaries on both sides"),
    (165, "Unclean meta-data found.\nYou need to 'drbdadm apply-al res'\n"),
    (166, "DRBD need to be connected for online MD layout change\n"),
    (167, "Resulting AL area too big\n"),
    (168, "Resulting AL are too small\n"),
    (169, "Resulting AL does not fit into available meta data space\n"),
    (170, "Implicit device shrinking not allowed. See kernel log.\n"),
];

fn find(table: &'static [(i32, &'static str)], code: i32) -> Option<&'static str> {
    table.iter().find(|&&(number, _)| number == code).map(|&(_, text)| text)
}

/// What drbdsetup prints about a refusal that concerns `object` (a resource's name or a minor), and its exit status.
/// Positive numbers up to 100 are successes and give no text.
pub fn explain(object: &str, refusal: &Refusal) -> (String, u8) {
    let code = refusal.code;
    let (mut text, status) = if let Some(text) = find(CONFIGURATION_ERRORS, code) {
        (format!("{object}: Failure: ({code}) {text}\n"), EXIT_CONFIGURATION)
    } else if let Some(text) = find(STATE_ERRORS, code) {
        let status = match code {
            NO_UP_TO_DATE_DISK => 17,
            LOWER_THAN_OUTDATED => 5,
            NO_LOCAL_DISK => 16,
            _ => EXIT_STATE,
        };
        (format!("{object}: State change failed: ({code}) {text}\n"), status)
    } else if code == 0 {
        (format!("{object}: State change failed: (0)unknown error.\n"), EXIT_STATE)
    } else if (1..=101).contains(&code) {
        (String::new(), 0)
    } else {
        (format!("{object}: Error code {code} unknown.\nYou should update the drbd userland tools.\n"), 20)
    };
    if !refusal.detail.is_empty() {
        text.push_str(&format!("additional info from kernel:\n{}\n", refusal.detail.trim_end()));
    }
    (text, status)
}

#[cfg(test)]
mod tests {
    use drbd_engine::admin::Refusal;

    use super::explain;

    #[test]
    fn texts_and_statuses_are_drbdsetups() {
        let explained = |object: &str, code| explain(object, &Refusal { code, detail: String::new() });
        for (object, code, text, status) in [
            ("0", -2, "0: State change failed: (-2) Need access to UpToDate data\n", 17),
            ("0", -1, "0: State change failed: (-1) Multiple primaries not allowed by config\n", 11),
            ("0", -12, "0: State change failed: (-12) Device is held open by someone\n", 11),
            ("0", 127, "0: Failure: (127) Device minor not allocated\n", 10),
            ("r0", 158, "r0: Failure: (158) Unknown resource\n", 10),
            ("r0", 1, "", 0),
        ] {
            assert_eq!(explained(object, code), (text.to_owned(), status));
        }
        assert_eq!(explained("r0", -99).1, 20);
    }

    #[test]
    fn the_daemons_word_is_passed_on() {
        let refusal = Refusal { code: 158, detail: "unknown resource".into() };
        let (text, _) = explain("r0", &refusal);
        assert_eq!(
            text,
            "r0: Failure: (158) Unknown resource\nadditional info from kernel:\nunknown resource\n"
        );
    }
}
