//! Courses: one question's work written as a plain `async fn`, run by nobody but the resolver itself.
//!
//! There is no runtime here, no clock and no thread. A course waits for exactly two things, a [`Slot`] that
//! somebody fills or a moment in time; both know which course to poll again. That makes the core a state
//! machine like any other (bytes and time in, bytes and answers out) whose states are written as code.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The time as the driver sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, since any moment.
    pub since_start: Duration,
    /// Seconds since 1970, for signatures.
    pub wall: u64,
}

type Course = Pin<Box<dyn Future<Output = ()>>>;
type CourseId = usize;

/// Runs courses.
#[derive(Default)]
pub struct Courses {
    now: Cell<Now>,
    current: Cell<CourseId>,
    ready: RefCell<VecDeque<CourseId>>,
    timers: RefCell<BinaryHeap<Reverse<(Duration, CourseId)>>>,
    courses: RefCell<Vec<Option<Course>>>,
    free: RefCell<Vec<CourseId>>,
}

impl Courses {
    /// Returns the time.
    pub fn now(&self) -> Now {
        self.now.get()
    }

    /// Moves the time; what waited for it is polled by [`Courses::run`].
    pub fn set_now(&self, now: Now) {
        self.now.set(now);
        let mut timers = self.timers.borrow_mut();
        while let Some(Reverse((at, course))) = timers.peek().copied() {
            if at > now.since_start {
                break;
            }
            timers.pop();
            self.ready.borrow_mut().push_back(course);
        }
    }

    /// Returns when somebody waits for the time next.
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.borrow().peek().map(|Reverse((at, _))| *at)
    }

    /// Starts a course; it begins with the next [`Courses::run`].
    pub fn spawn(&self, course: impl Future<Output = ()> + 'static) {
        let course: Course = Box::pin(course);
        let mut courses = self.courses.borrow_mut();
        let id = match self.free.borrow_mut().pop() {
            Some(id) => {
                courses[id] = Some(course);
                id
            }
            None => {
                courses.push(Some(course));
                courses.len() - 1
            }
        };
        self.ready.borrow_mut().push_back(id);
    }

    /// Polls all that is ready until nothing is.
    pub fn run(&self) {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let Some(id) = self.ready.borrow_mut().pop_front() else { return };
            let Some(mut course) = self.courses.borrow_mut().get_mut(id).and_then(Option::take) else { continue };
            self.current.set(id);
            match course.as_mut().poll(&mut context) {
                Poll::Pending => self.courses.borrow_mut()[id] = Some(course),
                Poll::Ready(()) => {
                    drop(course);
                    self.free.borrow_mut().push(id);
                }
            }
        }
    }

    /// Ends all courses where they are. What they work on holds them, and they hold it: nobody else would.
    pub fn abandon(&self) {
        // What ends with a course may look at the others.
        let abandoned = std::mem::take(&mut *self.courses.borrow_mut());
        self.free.borrow_mut().clear();
        self.ready.borrow_mut().clear();
        drop(abandoned);
    }

    /// Counts the courses under way.
    pub fn under_way(&self) -> usize {
        self.courses.borrow().len() - self.free.borrow().len()
    }

    /// Waits for a moment.
    pub async fn until(&self, at: Duration) {
        let mut waiting = false;
        poll_fn(|_| {
            if self.now.get().since_start >= at {
                return Poll::Ready(());
            }
            if !waiting {
                waiting = true;
                self.timers.borrow_mut().push(Reverse((at, self.current.get())));
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits for work until a moment; `None` if the moment came first.
    pub async fn before<T>(&self, at: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut moment = pin!(self.until(at));
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            moment.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    /// Waits for work, or for what makes it void: then `None`.
    pub async fn either<T>(&self, work: impl Future<Output = T>, void: impl Future) -> Option<T> {
        let mut work = pin!(work);
        let mut void = pin!(void);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            void.as_mut().poll(context).map(|_| None)
        })
        .await
    }

    /// Waits until a slot is filled, and leaves its content there for others.
    pub async fn filled<T: Clone>(&self, slot: &Slot<T>) -> T {
        poll_fn(|_| {
            if let Some(content) = &*slot.content.borrow() {
                return Poll::Ready(content.clone());
            }
            let mut waiting = slot.waiting.borrow_mut();
            if waiting.last() != Some(&self.current.get()) {
                waiting.push(self.current.get());
            }
            Poll::Pending
        })
        .await
    }

    /// Fills a slot; those who wait for it are polled again. Only the first content counts.
    pub fn fill<T>(&self, slot: &Slot<T>, content: T) {
        slot.content.borrow_mut().get_or_insert(content);
        self.ready.borrow_mut().extend(slot.waiting.borrow_mut().drain(..));
    }
}

/// A place for one value that several may wait for.
#[derive(Debug)]
pub struct Slot<T> {
    content: RefCell<Option<T>>,
    waiting: RefCell<Vec<CourseId>>,
}

impl<T> Slot<T> {
    /// Makes an empty one.
    pub fn new() -> Rc<Self> {
        Rc::new(Self { content: RefCell::new(None), waiting: RefCell::default() })
    }
}

/// Polls several futures and returns the first that is done with its place; the others stay in the list.
pub async fn first<F: Future + Unpin>(futures: &mut Vec<F>) -> Option<F::Output> {
    poll_fn(|context| {
        if futures.is_empty() {
            return Poll::Ready(None);
        }
        for place in 0..futures.len() {
            if let Poll::Ready(done) = Pin::new(&mut futures[place]).poll(context) {
                drop(futures.swap_remove(place));
                return Poll::Ready(Some(done));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { since_start: Duration::from_secs(seconds), wall: seconds }
    }

    #[test]
    fn a_course_waits_for_a_slot_or_a_moment_whichever_is_first() {
        let courses = Rc::new(Courses::default());
        let slot = Slot::<u8>::new();
        let seen = Rc::new(RefCell::new(Vec::new()));
        for deadline in [1, 3] {
            let (courses_too, slot, seen) = (courses.clone(), slot.clone(), seen.clone());
            courses.spawn(async move {
                let content = courses_too.before(Duration::from_secs(deadline), courses_too.filled(&slot)).await;
                seen.borrow_mut().push((deadline, content));
            });
        }

        courses.run();
        courses.set_now(at(2));
        courses.run();
        courses.fill(&slot, 7);
        courses.run();

        assert_eq!(*seen.borrow(), [(1, None), (3, Some(7))]);
        assert_eq!(courses.under_way(), 0);
    }

    #[test]
    fn courses_that_are_abandoned_hold_nothing_any_more() {
        let courses = Rc::new(Courses::default());
        for _ in 0..3 {
            let held = courses.clone();
            courses.spawn(async move { held.until(Duration::from_secs(9)).await });
        }
        courses.run();
        assert_eq!(Rc::strong_count(&courses), 4);

        courses.abandon();

        assert_eq!((Rc::strong_count(&courses), courses.under_way()), (1, 0));
    }
}
