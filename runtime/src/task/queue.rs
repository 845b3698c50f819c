//! The nodes of one nursery that are ready to be polled, linked through the nodes themselves.

use std::cell::Cell;

use super::NodeRef;

/// First in, first out; holds a reference to each node in it.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    head: Cell<Option<NodeRef>>,
    tail: Cell<Option<NodeRef>>,
}

impl ReadyQueue {
    pub(crate) fn push(&self, node: NodeRef) {
        match self.tail.replace(Some(node.clone())) {
            Some(last) => {
                let before = last.next_ready.replace(Some(node));
                debug_assert!(before.is_none(), "the last node has no successor");
            }
            None => self.head.set(Some(node)),
        }
    }

    pub(crate) fn pop(&self) -> Option<NodeRef> {
        let node = self.head.take()?;
        match node.next_ready.take() {
            Some(next) => self.head.set(Some(next)),
            None => drop(self.tail.take()),
        }
        Some(node)
    }

    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.take();
        let empty = head.is_none();
        self.head.set(head);
        empty
    }

    /// The next node, if it was woken in another turn than `turn`.
    pub(crate) fn pop_woken_before(&self, turn: u32) -> Option<NodeRef> {
        let node = self.head.take()?;
        if node.stamp.get() == turn {
            self.head.set(Some(node));
            return None;
        }
        match node.next_ready.take() {
            Some(next) => self.head.set(Some(next)),
            None => drop(self.tail.take()),
        }
        Some(node)
    }

    /// Takes every node out; iterative, so that a long queue does not overflow the stack.
    pub(crate) fn clear(&self) {
        while self.pop().is_some() {}
    }
}

impl Drop for ReadyQueue {
    fn drop(&mut self) {
        self.clear();
    }
}
