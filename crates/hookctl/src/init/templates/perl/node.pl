#!/usr/bin/env perl
# Starts a VM only in the rack that its annotation example.org/rack names.
use strict;
use warnings;
use File::Basename qw(dirname);
use lib dirname(__FILE__) . '/lib';
use KubevirtHook qw(refuse);

my $ANNOTATION = 'example.org/rack';

# Runs on the node, for every VM that starts there. Node names begin with the rack's name.
sub check_rack {
    my ($vmi, $node) = @_;
    my $rack = $vmi->{metadata}{annotations}{$ANNOTATION};
    return if !defined $rack || index($node, "$rack-") == 0;
    # The VM's owner reads this text in the VM's events.
    refuse("annotation $ANNOTATION: node $node is not in rack $rack");
}

KubevirtHook::run('@NAME@', '0.1.0', preVMStart => \&check_rack) if !caller;
1;
