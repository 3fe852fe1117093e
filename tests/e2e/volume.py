"""Files that a test changes: plain ones, and those of a volume in Kubernetes."""

import os


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


class Volume:
    """A directory as kubelet mounts a Secret or a ConfigMap: each name is a link through ..data, a link
    to a directory. put() replaces all files by renaming another link to ..data."""

    def __init__(self, path):
        self.path = path
        self.turn = 0
        os.mkdir(path)

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def put(self, **files):
        self.turn += 1
        fresh = f"..2026_01_01_{self.turn:02}"
        os.mkdir(self / fresh)
        for name, text in files.items():
            write(os.path.join(self.path, fresh, name), text)
        os.symlink(fresh, self / "..data_tmp")
        old = os.readlink(self / "..data") if os.path.lexists(self / "..data") else None
        os.rename(self / "..data_tmp", self / "..data")
        for name in files:
            if not os.path.lexists(self / name):
                os.symlink(f"..data/{name}", self / name)
        if old:
            for name in os.listdir(self / old):
                os.unlink(os.path.join(self.path, old, name))
            os.rmdir(self / old)
        return self
