module baton.dev/bench/peers

go 1.22
