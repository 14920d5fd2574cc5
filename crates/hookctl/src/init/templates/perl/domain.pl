#!/usr/bin/env perl
# Sets the asset tag of a VM to its annotation example.org/asset-tag.
use strict;
use warnings;
use File::Basename qw(dirname);
use lib dirname(__FILE__) . '/lib';
use KubevirtHook qw(refuse xml_text);

my $ANNOTATION = 'example.org/asset-tag';

# Returns the VM's changed libvirt domain. KubeVirt calls this up to three times for one boot.
sub set_asset_tag {
    my ($vmi, $domain) = @_;
    my $tag = $vmi->{metadata}{annotations}{$ANNOTATION};
    return if !defined $tag;    # nothing changes
    # The VM's owner reads this text in the VM's events.
    refuse("annotation $ANNOTATION: a character that SMBIOS cannot hold") if $tag =~ /[^[:print:]]/;
    my $text = xml_text($tag);
    my $entry = qq(<entry name="asset">$text</entry>);

    # Replaces what the pattern's group matches, outside of comments.
    my $edit = sub {
        my ($pattern, $new) = @_;
        my $bare = $domain =~ s/<!--.*?-->|<!\[CDATA\[.*?\]\]>/' ' x length $&/gesr;
        return $bare =~ $pattern && defined substr $domain, $-[1], $+[1] - $-[1], $new;
    };
    $edit->(qr{<chassis>(?:(?!</chassis>).)*<entry\s+name=["']asset["']>([^<]*)}s, $text)
        or $edit->(qr{<chassis>()}, $entry)
        or $edit->(qr{(<chassis\s*/>)}, "<chassis>$entry</chassis>")
        or $edit->(qr{<sysinfo\s+type=["']smbios["']>()}, "<chassis>$entry</chassis>")
        or $edit->(qr{()</domain>}, qq(<sysinfo type="smbios"><chassis>$entry</chassis></sysinfo>));
    return $domain;
}

KubevirtHook::run('@NAME@', '0.1.0', onDefineDomain => \&set_asset_tag) if !caller;
1;
