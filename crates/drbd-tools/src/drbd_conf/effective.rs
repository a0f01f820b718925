//! What a connection or volume gets from all sections together, and the same for the daemon.

use drbd_engine::admin::{
    DiskOptions, MetaIndex, NetOptions, ReplicationProtocol, ResourceOptions, SizeWish,
};

use super::model::{Config, MetaDisk, Setting, Word};
use super::options::{Kind, OptionDef};
use super::value;

/// Hands options down: from `common` to each resource, from there to each volume of each host. What is set below
/// stays. Names every device that has only a minor.
pub fn expand(config: &mut Config) {
    for resource in &mut config.resources {
        if let Some(common) = &config.common {
            let sections = &mut resource.sections;
            hand_down(&common.net, &mut sections.net);
            hand_down(&common.disk, &mut sections.disk);
            hand_down(&common.startup, &mut sections.startup);
            hand_down(&common.handlers, &mut sections.handlers);
            hand_down(&common.options, &mut sections.options);
            sections.stacked_timeouts |= common.stacked_timeouts;
            if sections.become_primary_on.is_empty() {
                sections.become_primary_on.clone_from(&common.become_primary_on);
            }
        }
        for host in &mut resource.hosts {
            for volume in &mut host.volumes {
                hand_down(&resource.sections.disk, &mut volume.disk_options);
                if let Some(shared) = resource.volumes.iter().find(|shared| shared.number == volume.number) {
                    hand_down(&shared.disk_options, &mut volume.disk_options);
                }
                if let (None, Some((minor, span))) = (&volume.device, volume.minor) {
                    volume.device = Some(Word { text: format!("/dev/drbd{minor}"), span });
                }
            }
        }
    }
}

/// Puts each option of `from` that `to` has not before the rest, as drbdadm does: the order is seen in dumps.
fn hand_down(from: &[Setting], to: &mut Vec<Setting>) {
    for setting in from {
        if !to.iter().any(|own| own.option.name == setting.option.name) {
            to.insert(0, setting.clone());
        }
    }
}

/// The value an option has here, if it is set: the last word counts.
fn value_of<'a>(settings: &'a [Setting], name: &str) -> Option<&'a Setting> {
    settings.iter().rfind(|setting| setting.option.name == name)
}

fn number(settings: &[Setting], name: &str) -> Option<u64> {
    let setting = value_of(settings, name)?;
    match setting.option.kind {
        Kind::Number { scale, .. } => value::number(&setting.value, scale),
        _ => None,
    }
}

/// A number into a field; all that the table's limits let through fit.
fn take_number(settings: &[Setting], name: &str, field: &mut u32) {
    if let Some(value) = number(settings, name).and_then(|value| u32::try_from(value).ok()) {
        *field = value;
    }
}

fn take_flag(settings: &[Setting], name: &str, field: &mut bool) {
    if let Some(setting) = value_of(settings, name) {
        *field = setting.value == "yes";
    }
}

fn take_text(settings: &[Setting], name: &str, field: &mut String) {
    if let Some(setting) = value_of(settings, name) {
        field.clone_from(&setting.value);
    }
}

fn take_choice(settings: &[Setting], name: &str, node: &str, field: &mut u32) {
    let Some(setting) = value_of(settings, name) else { return };
    let Kind::Choice(choices) = setting.option.kind else { return };
    let word = discard_node(&setting.value, node);
    if let Some(&(_, number)) = choices.iter().find(|&&(choice, _)| choice == word) {
        *field = number;
    }
}

/// 8.3's `discard-node-NAME` is `discard-local` on that node and `discard-remote` on the other. Other words stay.
pub fn discard_node<'a>(word: &'a str, node: &str) -> &'a str {
    match word.strip_prefix("discard-node-") {
        Some(named) if named == node => "discard-local",
        Some(_) => "discard-remote",
        None => word,
    }
}

/// The disk section for the daemon.
pub fn disk_options(settings: &[Setting]) -> DiskOptions {
    disk_options_over(DiskOptions::default(), settings)
}

/// `options` with what the settings say over them.
pub fn disk_options_over(mut options: DiskOptions, settings: &[Setting]) -> DiskOptions {
    if let Some(sectors) = number(settings, "size") {
        options.size_sectors = sectors;
    }
    take_number(settings, "resync-rate", &mut options.resync_rate_kib_per_s);
    take_number(settings, "al-extents", &mut options.al_extents);
    take_choice(settings, "fencing", "", &mut options.fencing);
    take_choice(settings, "on-io-error", "", &mut options.on_io_error);
    take_flag(settings, "disk-flushes", &mut options.disk_flushes);
    take_flag(settings, "md-flushes", &mut options.md_flushes);
    // In 8.3 the rate of the syncer section was the rate, as its default of c-plan-ahead was 0.
    if value_of(settings, "resync-rate").is_some_and(|setting| setting.in_syncer) {
        options.c_plan_ahead_ds = 0;
    }
    take_number(settings, "c-plan-ahead", &mut options.c_plan_ahead_ds);
    take_number(settings, "c-delay-target", &mut options.c_delay_target_ds);
    take_number(settings, "c-fill-target", &mut options.c_fill_target_sectors);
    take_number(settings, "c-max-rate", &mut options.c_max_rate_kib_per_s);
    take_number(settings, "c-min-rate", &mut options.c_min_rate_kib_per_s);
    take_number(settings, "rs-discard-granularity", &mut options.rs_discard_granularity_bytes);
    take_flag(settings, "discard-zeroes-if-aligned", &mut options.discard_zeroes_if_aligned);
    options
}

/// What the options of `resize` ask for.
pub fn size_wish(settings: &[Setting]) -> SizeWish {
    let small = |name| number(settings, name).and_then(|value| u32::try_from(value).ok());
    let mut wish = SizeWish {
        size_sectors: number(settings, "size").unwrap_or(0),
        al_stripes: small("al-stripes"),
        al_stripe_size_kib: small("al-stripe-size-kB"),
        ..SizeWish::default()
    };
    take_flag(settings, "assume-peer-has-space", &mut wish.assume_peer_has_space);
    take_flag(settings, "assume-clean", &mut wish.assume_clean);
    wish
}

/// The net section for the daemon on `node`.
pub fn net_options(settings: &[Setting], node: &str) -> NetOptions {
    net_options_over(NetOptions::default(), settings, node)
}

/// `options` with what the settings say over them.
pub fn net_options_over(mut options: NetOptions, settings: &[Setting], node: &str) -> NetOptions {
    if let Some(protocol) = value_of(settings, "protocol") {
        options.protocol = match protocol.value.as_str() {
            "A" => ReplicationProtocol::A,
            "B" => ReplicationProtocol::B,
            _ => ReplicationProtocol::C,
        };
    }
    take_text(settings, "cram-hmac-alg", &mut options.cram_hmac_alg);
    if let Some(setting) = value_of(settings, "shared-secret") {
        options.shared_secret = setting.value.as_str().into();
    }
    take_number(settings, "timeout", &mut options.timeout_ds);
    take_number(settings, "ping-int", &mut options.ping_int_s);
    take_number(settings, "ping-timeout", &mut options.ping_timeout_ds);
    take_number(settings, "connect-int", &mut options.connect_int_s);
    take_flag(settings, "allow-two-primaries", &mut options.allow_two_primaries);
    take_choice(settings, "after-sb-0pri", node, &mut options.after_sb_0pri);
    take_choice(settings, "after-sb-1pri", node, &mut options.after_sb_1pri);
    take_choice(settings, "after-sb-2pri", node, &mut options.after_sb_2pri);
    take_flag(settings, "always-asbp", &mut options.always_asbp);
    take_choice(settings, "rr-conflict", node, &mut options.rr_conflict);
    take_number(settings, "max-epoch-size", &mut options.max_epoch_size);
    take_number(settings, "max-buffers", &mut options.max_buffers);
    take_number(settings, "sndbuf-size", &mut options.sndbuf_size);
    take_number(settings, "rcvbuf-size", &mut options.rcvbuf_size);
    take_number(settings, "ko-count", &mut options.ko_count);
    take_flag(settings, "use-rle", &mut options.use_rle);
    take_flag(settings, "tcp-cork", &mut options.tcp_cork);
    take_text(settings, "data-integrity-alg", &mut options.data_integrity_alg);
    take_text(settings, "csums-alg", &mut options.csums_alg);
    take_flag(settings, "csums-after-crash-only", &mut options.csums_after_crash_only);
    take_text(settings, "verify-alg", &mut options.verify_alg);
    options
}

/// The options section for the daemon.
pub fn resource_options(settings: &[Setting]) -> ResourceOptions {
    resource_options_over(ResourceOptions::default(), settings)
}

/// `options` with what the settings say over them.
pub fn resource_options_over(mut options: ResourceOptions, settings: &[Setting]) -> ResourceOptions {
    take_choice(settings, "on-no-data-accessible", "", &mut options.on_no_data_accessible);
    take_text(settings, "cpu-mask", &mut options.cpu_mask);
    options
}

/// Where the meta-data are, for the daemon.
pub fn meta_index(meta_disk: Option<&MetaDisk>) -> MetaIndex {
    match meta_disk {
        Some(MetaDisk::Internal) | None => MetaIndex::Internal,
        Some(MetaDisk::Flexible(_)) => MetaIndex::FlexExternal,
        Some(MetaDisk::Indexed(_, index)) => MetaIndex::Index(*index),
    }
}

/// Settings that ask for something the daemon does not do: not its default, and without effect.
pub fn without_effect(settings: &[Setting]) -> impl Iterator<Item = &Setting> {
    settings
        .iter()
        .filter(|setting| !setting.option.has_effect && !is_default(setting.option, &setting.value))
}

fn is_default(option: &OptionDef, text: &str) -> bool {
    match option.kind {
        Kind::Number { default, scale, .. } => value::number(text, scale) == Some(default),
        Kind::Flag { default, .. } => (text == "yes") == default,
        Kind::Choice(choices) => choices[0].0 == text,
        Kind::Protocol => text == "C",
        Kind::Text { .. } | Kind::Forgotten => text.is_empty(),
    }
}
