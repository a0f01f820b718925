//! Configuration tokens with spans, and diagnostics that point.
