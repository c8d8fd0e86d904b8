//! Guests that are made up as text, with shares of time fixed by construction, for tests of distributions.
//!
//! All work is steps of the chain that [`chain`](crate::chain) computes natively: each needs the result of the one
//! before it, so that a step takes the same time in straight-line code and in a loop. What distinguishes these guests
//! from [`Guest::KnownAnswer`](crate::Guest::KnownAnswer) is that a round is over after some microseconds and no
//! stretch of one part lasts longer than a few: far less than a profiler's period, so that samples of them are all but
//! independent, and ordinary tests of goodness of fit apply.

/// Where a sample has to fall to count for a part of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The youngest function.
    Function(&'static str),
    /// The youngest function, called by this other one.
    CallSite {
        /// The next older function.
        caller: &'static str,
        /// The youngest function.
        function: &'static str,
    },
}

impl Place {
    /// Whether a stack with these guest functions, oldest first, is here.
    pub fn holds(self, stack: &[&str]) -> bool {
        match self {
            Place::Function(function) => stack.last() == Some(&function),
            Place::CallSite { caller, function } => stack.ends_with(&[caller, function]),
        }
    }
}

/// A guest whose every part has a known share of the time. It exports `run(rounds: i32) -> i64`, which does one round at
/// least and returns the last value of the chain that starts at [`SEED`](crate::SEED).
#[derive(Debug, Clone)]
pub struct GeneratedGuest {
    /// What it is called.
    pub name: &'static str,
    /// Its source in the text format.
    pub text: String,
    /// Its parts, and the steps that each does in a round.
    pub parts: Vec<(Place, u64)>,
}

impl GeneratedGuest {
    /// One function of each shape: straight-line code, a loop, a recursion, two functions behind a table, and a function
    /// so small that a compiler may inline it.
    pub fn shapes() -> Self {
        let functions = [
            chained("straight", &straight(1000)),
            chained("looping", &looping(2500)),
            // Steps after the call as well, so that it is no tail call.
            format!(
                "(func $recursive (param $x i64) (param $levels i32) (result i64)\n{0}\
                 (if (i32.gt_u (local.get $levels) (i32.const 1)) (then (local.set $x\n\
                 (call $recursive (local.get $x) (i32.sub (local.get $levels) (i32.const 1))))))\n{0}\
                 (local.get $x))\n",
                straight(75)
            ),
            chained("indirect_most", &straight(500)),
            chained("indirect_some", &straight(250)),
            chained("small", &straight(20)),
            "(type $chained (func (param i64) (result i64)))\n\
             (table funcref (elem $indirect_most $indirect_some))\n"
                .to_owned(),
        ];
        let indirect = |index: u32| {
            format!("(local.set $x (call_indirect (type $chained) (local.get $x) (i32.const {index})))\n")
        };
        let round = [
            call("straight").repeat(3),
            call("looping"),
            "(local.set $x (call $recursive (local.get $x) (i32.const 10)))\n".to_owned(),
            indirect(0).repeat(2) + &indirect(1).repeat(2),
            call("small").repeat(75),
        ];
        Self::new(
            "shapes",
            &functions.concat(),
            &round.concat(),
            [
                (Place::Function("straight"), 3000),
                (Place::Function("looping"), 2500),
                (Place::Function("recursive"), 1500),
                (Place::Function("indirect_most"), 1000),
                (Place::Function("indirect_some"), 500),
                (Place::Function("small"), 1500),
            ],
        )
    }

    /// One function called from two places: seldom, for long, and often, for a moment. A profiler that spreads a
    /// function's time over its callers by their number of calls has it the wrong way round.
    pub fn call_sites() -> Self {
        let functions = [
            format!(
                "(func $work (param $x i64) (param $turns i32) (result i64) (local $left i32)\n{}(local.get $x))\n",
                repeated("(local.get $turns)", &straight(50))
            ),
            chained("seldom", &format!("{}{}", straight(800), work(120))),
            chained("often", &format!("{}{}", straight(300), work(4).repeat(5))),
        ];
        Self::new(
            "call_sites",
            &functions.concat(),
            &(call("seldom") + &call("often").repeat(2)),
            [
                (Place::CallSite { caller: "seldom", function: "work" }, 6000),
                (Place::CallSite { caller: "often", function: "work" }, 2000),
                (Place::Function("seldom"), 800),
                (Place::Function("often"), 600),
            ],
        )
    }

    /// Three functions, of which the second one is held up by ten times `delay` steps a round besides its 1,000 of 4,000.
    pub fn delayed(delay: u32) -> Self {
        let delays = match delay {
            0 => String::new(),
            _ => repeated(&format!("(i32.const {delay})"), &straight(10)),
        };
        let functions = [
            chained("before", &straight(2000)),
            chained("delayed", &format!("{}{delays}", straight(1000))),
            chained("after", &straight(1000)),
        ];
        Self::new(
            "delayed",
            &functions.concat(),
            &(call("before") + &call("delayed") + &call("after")),
            [
                (Place::Function("before"), 2000),
                (Place::Function("delayed"), 1000 + 10 * u64::from(delay)),
                (Place::Function("after"), 1000),
            ],
        )
    }

    /// Two functions, 18,000 steps and 54,000 at a stretch, together about a tenth of a millisecond; then the guest calls
    /// `env.wait`, its one import. A host that waits there for the next tick of a clock makes the guest repeat itself with
    /// exactly that period, in order to catch a profiler that ticks with the same one.
    pub fn in_step() -> Self {
        let functions = [
            "(import \"env\" \"wait\" (func $wait))\n".to_owned(),
            chained("early", &straight(1000)),
            chained("late", &straight(1000)),
        ];
        Self::new(
            "in_step",
            &functions.concat(),
            &(call("early").repeat(18) + &call("late").repeat(54) + "(call $wait)\n"),
            [(Place::Function("early"), 18000), (Place::Function("late"), 54000)],
        )
    }

    fn new(
        name: &'static str,
        functions: &str,
        round: &str,
        parts: impl IntoIterator<Item = (Place, u64)>,
    ) -> Self {
        let text = format!(
            "(module ${name}\n{functions}(func $run (export \"run\") (param $rounds i32) (result i64)\n\
             (local $x i64) (local $left i32)\n\
             (local.set $x (i64.const {}))\n{}(local.get $x)))\n",
            crate::SEED,
            repeated("(local.get $rounds)", round),
        );
        Self { name, text, parts: parts.into_iter().collect() }
    }

    /// Its binary, with names.
    ///
    /// # Panics
    ///
    /// If the text is not valid, which is a mistake in this file.
    pub fn binary(&self) -> Vec<u8> {
        wat::parse_str(&self.text).expect("generated text is valid")
    }

    /// How many steps a round has.
    pub fn steps_per_round(&self) -> u64 {
        self.parts.iter().map(|(_, steps)| steps).sum()
    }

    /// Each part's share of the time, from 0 to 1, in the order of the parts.
    pub fn shares(&self) -> Vec<f64> {
        let all = self.steps_per_round() as f64;
        self.parts.iter().map(|&(_, steps)| steps as f64 / all).collect()
    }

    /// The part that a stack with these guest functions, oldest first, belongs to.
    pub fn part_of(&self, stack: &[&str]) -> Option<usize> {
        self.parts.iter().position(|(place, _)| place.holds(stack))
    }
}

/// A function that carries the chain on.
fn chained(name: &str, body: &str) -> String {
    format!("(func ${name} (param $x i64) (result i64) (local $left i32)\n{body}(local.get $x))\n")
}

fn call(function: &str) -> String {
    format!("(local.set $x (call ${function} (local.get $x)))\n")
}

fn work(turns: u32) -> String {
    format!("(local.set $x (call $work (local.get $x) (i32.const {turns})))\n")
}

fn straight(steps: usize) -> String {
    "(local.set $x (i64.xor (i64.mul (local.get $x) (i64.const 109)) (i64.const 91)))\n".repeat(steps)
}

fn looping(steps: u32) -> String {
    repeated(&format!("(i32.const {steps})"), &straight(1))
}

/// The body, as many times as the expression says and at least once.
fn repeated(times: &str, body: &str) -> String {
    format!(
        "(local.set $left {times})\n\
         (loop $turn\n{body}(br_if $turn (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))\n"
    )
}
