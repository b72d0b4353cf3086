"""Raw records to exchange model: the model as data, code lists, transforms, identifiers."""
