module breakerd

go 1.19
