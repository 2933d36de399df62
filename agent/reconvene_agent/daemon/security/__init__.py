"""Who is believed: keys and signed commands, certificates and the files of TLS."""
