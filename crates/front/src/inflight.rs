//! Requests handed out and not completed, named by small numbers that are not soon used again.

use crate::request::RequestId;

/// A table from `RequestId` to what the answer needs.
#[derive(Debug)]
pub(crate) struct InFlight<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> InFlight<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> RequestId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("fronts bound their requests far below 2^32")
        });
        let (generation, slot) = &mut self.slots[index as usize];
        *slot = Some(value);
        RequestId(u64::from(*generation) << 32 | u64::from(index))
    }

    /// None for an id that was completed before or never given.
    pub(crate) fn remove(&mut self, id: RequestId) -> Option<T> {
        let (index, of_generation) = (id.0 as u32, (id.0 >> 32) as u32);
        let (generation, slot) = self.slots.get_mut(index as usize)?;
        if *generation != of_generation {
            return None;
        }
        let value = slot.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::InFlight;

    #[test]
    fn an_id_is_good_once() {
        let mut table = InFlight::new();
        let [a, b] = ["a", "b"].map(|value| table.insert(value));
        assert_eq!(table.remove(a), Some("a"));
        assert_eq!(table.remove(a), None);
        let c = table.insert("c");
        assert_ne!(a, c);
        assert_eq!(table.remove(a), None);
        assert_eq!([table.remove(c), table.remove(b)], [Some("c"), Some("b")]);
    }
}
