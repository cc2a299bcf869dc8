//! The real process under a clock that is wrong and then set. No namespace of the kernel's has a wall clock of its
//! own: a library in front of the C library's adds what a file says.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    client::{Answer, dig},
    edge::PROGRAM,
    outage::Resolver,
    servers::Authorities,
    world::{World, needs, shell, within},
};

/// Adds the seconds in the first eight bytes of a file to the wall clock, and says that nobody keeps it right.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/timex.h>
#include <time.h>
static volatile int64_t *offset;
static int (*real)(clockid_t, struct timespec *);
__attribute__((constructor)) static void begin(void) {
    real = dlsym(RTLD_NEXT, "clock_gettime");
    int file = open(getenv("WALL_CLOCK"), O_RDONLY);
    void *memory = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) offset = memory;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = real(clock, time);
    if (clock == CLOCK_REALTIME && offset) time->tv_sec += *offset;
    return result;
}
int adjtimex(struct timex *timex) { return TIME_ERROR; }
"#;

const YEAR_2040: i64 = 2_208_988_800;

/// The wall clock of one process.
pub(crate) struct Clock {
    file: File,
    library: PathBuf,
    place: PathBuf,
}

impl Clock {
    /// Makes what it needs in a folder.
    pub(crate) fn new(folder: &Path, offset: i64) -> Self {
        let path = |name| folder.join(name);
        let (source, library, place) = (path("clock.c"), path("clock.so"), path("clock.offset"));
        std::fs::write(&source, LIBRARY).expect("the folder is ours");
        shell(&format!("gcc -shared -fPIC -O1 -o {} {} -ldl", library.display(), source.display()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).open(&place).expect("the folder is ours");
        let clock = Self { file, library, place };
        clock.set(offset);
        clock
    }

    /// Sets the wall clock to the true time and so many seconds.
    pub(crate) fn set(&self, offset: i64) {
        self.file.write_all_at(&offset.to_ne_bytes(), 0).expect("the file is ours");
    }

    /// What `env` sets for the process.
    pub(crate) fn environment(&self) -> [String; 2] {
        [format!("LD_PRELOAD={}", self.library.display()), format!("WALL_CLOCK={}", self.place.display())]
    }

    fn resolver(&self, world: &World) -> Resolver {
        let [library, place] = self.environment();
        let lines = format!("trust_anchors = {:?}\n", world.path("root.key"));
        Resolver::start(world, "env", &[&library, &place, PROGRAM], &lines)
    }
}

fn soon(world: &World, name: &str) -> Answer {
    dig(&world.lan, &format!("@192.168.1.2 +dnssec +time=1 +tries=1 {name} A"))
}

#[test]
fn a_house_that_boots_with_a_wrong_clock_finds_its_time_servers_and_validates_within_a_second_of_the_step() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig", "gcc");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs().cast_signed();
    for (boot, offset) in [("1970", 60 - now), ("30 days ago", -30 * 86400), ("2040", YEAR_2040 - now)] {
        let world = World::new();
        let _authorities = Authorities::start(&world);
        let clock = Clock::new(world.folder(), offset);
        let resolver = clock.resolver(&world);

        // `node.ntp` has this name.
        let unchecked = soon(&world, "www.good.tld");
        let printed = || resolver.process.printed();
        assert_eq!(
            (unchecked.status.as_str(), unchecked.authenticated),
            ("NOERROR", false),
            "{boot} {} {}",
            unchecked.text,
            printed()
        );
        assert!(unchecked.text.contains("the clock is not set"), "{boot} {}", unchecked.text);
        assert!(unchecked.has("11.0.3.1"), "{boot} {}", unchecked.text);

        clock.set(0);

        let mut last = String::new();
        let validates = within(1, || {
            let answer = soon(&world, "www.good.tld");
            last = answer.text;
            answer.status == "NOERROR" && answer.authenticated
        });
        assert!(validates, "{boot} {last} {}", printed());
        let other = soon(&world, "www.hashed.tld");
        assert_eq!((other.status.as_str(), other.authenticated), ("NOERROR", true), "{boot} {}", other.text);
        let bogus = soon(&world, "www.bogus.tld");
        assert_eq!(bogus.status, "SERVFAIL", "{boot} {}", bogus.text);
    }
}
