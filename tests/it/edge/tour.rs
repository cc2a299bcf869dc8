//! The tour of the quick start.

use super::*;

#[test]
fn the_tour_holds() {
    let house = House::new();
    let _running = house.start();

    let tour = house.call(&["tour"]);

    assert!(tour.status.success(), "{}{}", stdout(&tour), stderr(&tour));
    assert_eq!(stdout(&tour).matches('✓').count(), 7, "{}", stdout(&tour));
}

#[test]
fn the_tour_says_what_does_not_hold() {
    let house = House::new();
    house.write(&house.text().replace("192.168.1.10", "192.168.1.11").replace("access = \"vpn\"", "access = \"lan\""));
    let _running = house.start();

    let tour = house.call(&["tour"]);

    assert_eq!(tour.status.code(), Some(1), "{}", stdout(&tour));
    for step in ["✗ 1", "✓ 2", "✓ 3", "✗ 4", "✗ 7"] {
        assert!(stdout(&tour).contains(step), "{step}:\n{}", stdout(&tour));
    }
}
