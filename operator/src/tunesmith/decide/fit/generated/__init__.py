"""Tables that scripts of this repository generate from other projects; do not edit."""
