//! In which order things are tried that wait for each other, so that one pass is enough wherever one can be. Knows
//! neither projects nor plans.

use std::collections::BTreeSet;

/// All of `waits`, each behind those that it waits for, otherwise as they come. Those of a circle, and what waits for
/// them, stand at the end: whoever tries them finds out what is wrong.
pub(super) fn ordered(waits: &[Vec<usize>]) -> Vec<usize> {
    let mut waited_for_by = vec![Vec::new(); waits.len()];
    let mut open: Vec<usize> = Vec::with_capacity(waits.len());
    for (index, others) in waits.iter().enumerate() {
        let others: BTreeSet<usize> = others.iter().copied().filter(|other| *other < waits.len()).collect();
        open.push(others.len());
        for other in others {
            waited_for_by[other].push(index);
        }
    }
    let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|index| open[*index] == 0).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for &follower in &waited_for_by[next] {
            open[follower] -= 1;
            if open[follower] == 0 {
                ready.insert(follower);
            }
        }
    }
    order.extend((0..waits.len()).filter(|index| open[*index] > 0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_comes_first_and_circles_last() {
        assert_eq!(ordered(&[vec![], vec![], vec![]]), [0, 1, 2], "as they come");
        assert_eq!(ordered(&[vec![1], vec![2], vec![]]), [2, 1, 0], "a chain");
        assert_eq!(ordered(&[vec![2, 2], vec![], vec![1]]), [1, 2, 0], "named twice");
        assert_eq!(ordered(&[vec![1], vec![0], vec![], vec![0], vec![4]]), [2, 0, 1, 3, 4], "circles");
        assert_eq!(ordered(&[vec![9], vec![]]), [0, 1], "who is not there is not waited for");
    }
}
