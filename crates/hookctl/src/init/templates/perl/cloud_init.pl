#!/usr/bin/env perl
# Sets the host name of a VM's guest to the VM's annotation example.org/hostname.
#
# cloud-init takes it from the metadata, unless the user data has another one. User data may be
# YAML, a script, a template or MIME, so do not edit it as text: the SDKs for Python, Rust and Go
# add parts to it.
use strict;
use warnings;
use File::Basename qw(dirname);
use lib dirname(__FILE__) . '/lib';
use KubevirtHook qw(refuse);

my $ANNOTATION = 'example.org/hostname';

# Returns the VM's changed cloud-init data.
sub set_hostname {
    my ($vmi, $data) = @_;
    my $name = $vmi->{metadata}{annotations}{$ANNOTATION};
    return if !defined $name;    # nothing changes
    # The VM's owner reads this text in the VM's events.
    refuse("annotation $ANNOTATION: not a host name") if $name !~ /\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z/;
    if (my $metadata = $data->{NoCloudMetaData}) { $metadata->{'local-hostname'} = $name }
    if (my $metadata = $data->{ConfigDriveMetaData}) { @$metadata{qw(hostname local_hostname)} = ($name) x 2 }
    return $data;
}

KubevirtHook::run('@NAME@', '0.1.0', preCloudInitIso => \&set_hostname) if !caller;
1;
