//! The time as `events2 --timestamps` writes it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Date, time, microseconds and the zone's distance, with a blank after it: `2026-11-22T08:00:43.031885+00:00 `.
pub fn stamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or(0);
    // SAFETY: a tm is numbers and a pointer that may be null.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to what is ours, and live longer than the call.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut local) };
    let zone_minutes = local.tm_gmtoff / 60;
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}{:+03}:{:02} ",
        local.tm_year + 1900,
        local.tm_mon + 1,
        local.tm_mday,
        local.tm_hour,
        local.tm_min,
        local.tm_sec,
        now.subsec_micros(),
        zone_minutes / 60,
        zone_minutes.abs() % 60,
    )
}
