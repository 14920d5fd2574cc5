package xmledit

// Forget returns the document's error, and forgets it.
func (d *Document) Forget() error {
	err := d.err
	d.err = nil
	return err
}
